"""Registry of data sets, one per file, each holding `dataset`, a function from its argument to a `Dataset`.

    bob/datasets/x.py:   def dataset(argument: str) -> Dataset: ...
                   or:   dataset = Source(..., read=...)       for a published data set

The argument is what the user wrote after the colon (`folder:/data/mushrooms`); it may be empty.
"""

import abc
import dataclasses
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bob.core import registry
from bob.core.types import Shot

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Dataset", "Source", "check_split", "load", "title"]


@dataclass(frozen=True, kw_only=True)
class Dataset(abc.ABC):
    """Pictures with labels, and the words that prompts are made of. Subclasses are final."""

    name: str
    """Name without the location: `aircraft`, `cub_lt:100`. For the user's own pictures, as the user wrote it."""
    descriptor: str
    """One word for all classes, such as `bird`; the article in the templates is always `a`."""
    superclass: str = ""
    """Word for all classes in the prompts of Diff-Mix and Diff-II; empty: the descriptor."""
    class_names: tuple[str, ...]
    """Indexed by class id."""
    val: int = 16
    """Validation images per class, unless the run says otherwise (paper sec. 4.1: 16 or 10; long tail: 5)."""
    medium: tuple[int, int] | None = None
    """Long tail: fewest and most training images of a medium-shot class, both inclusive. None: each class has as many
    training images as the user asks for."""

    @abc.abstractmethod
    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The split: `shots` train, `val` val images per class, and the whole test set.

        Ordered by split (train, val, test), class id, rank. Nested: the 5-shot set of a seed is
        part of its 10-shot set, and val and test are the same for both. A long tail ignores `shots`;
        it is nested in the tail of a smaller imbalance factor.

        Raises:
            ValueError: if a class has too few images; names the class and its number of images.
        """

    @abc.abstractmethod
    def training_side(self, *, most: int, seed: int, without: Collection[str]) -> tuple[Shot, ...]:
        """The whole training side, from which the shots of `split` are drawn, these included.

        Ordered by class id, then as the split of this seed draws, so that a class's shots come first; all have the
        split `train`. Used to measure drawn images only, never to train.

        Args:
            most: largest number of images per class.
            seed: seed of the split.
            without: image ids to leave out: those of the test set, if the data set publishes none.

        Raises:
            ValueError: if a file cannot be read; names the file.
        """

    @abc.abstractmethod
    def facts(self, path: str) -> tuple[str, int, int]:
        """SHA-1, width and height in pixels of the picture at a shot's `path`.

        Raises:
            ValueError: if there is no such picture; names the path.
        """

    @abc.abstractmethod
    def open(self, shot: Shot) -> "Image.Image":
        """The picture, upright and RGB.

        Raises:
            ValueError: if the file is missing, truncated or no picture; names the file.
        """

    @property
    def address(self) -> str:
        """Argument of `load` on another machine that has the same files."""
        return self.name

    def holds(self, folder: Path) -> bool:
        """Whether files written to `folder` would be taken for pictures or classes of this data set."""
        return False


@dataclass(frozen=True, kw_only=True)
class Source:
    """A published data set: origin, location, licence and reader of its files."""

    title: str
    """Name in the paper's tables."""
    folder: str
    """Name of the official folder, looked for in `$BOB_DATA`."""
    wants: tuple[str, ...]
    """Files and folders in `folder` that are read."""
    origin: tuple[str, ...]
    """Official addresses of the archives."""
    licence: str
    """Terms of use."""
    read: Callable[[str], Dataset]

    def __call__(self, argument: str) -> Dataset:
        """The data set in the folder that the argument names, or else in `$BOB_DATA`."""
        return self.read(argument)

    def place(self, folder: str = "") -> Path:
        """Expected location: `folder`, or the official folder in `$BOB_DATA`."""
        return Path(folder).expanduser().absolute() if folder else Path(os.environ.get("BOB_DATA", ""), self.folder)

    def missing(self, place: Path) -> list[str]:
        """Entries of `wants` that do not exist in `place`."""
        return [name for name in self.wants if not (place / name).exists()]

    def root(self, folder: str = "") -> Path:
        """`place`, after a check that all files exist.

        Raises:
            ValueError: if files are missing; says which, their expected location and their origin.
        """
        place = self.place(folder)
        if not folder and not os.environ.get("BOB_DATA"):
            looked = f"a folder {self.folder}, but BOB_DATA, which says where to look for it, is not set"
        elif missing := self.missing(place):
            lacks = "them all" if len(missing) == len(self.wants) else ", ".join(missing)
            looked = f"{', '.join(self.wants)} in {place}, which lacks {lacks}"
        else:
            return place
        raise ValueError(
            f"{self.title} wants {looked}. It comes from {' and '.join(self.origin)}. Unpack it into $BOB_DATA as"
            f" {self.folder}, or give the folder after a colon: --dataset NAME:FOLDER"
        )


def load(name: str, descriptor: str = "") -> Dataset:
    """Loads the data set that the user wrote as `name`, for instance `folder:/data/mushrooms`.

    Args:
        name: name of a file of this folder, then the argument after a colon.
        descriptor: the user's word for all classes; empty: the data set's own.

    Raises:
        ValueError: if there is no such data set, its argument or files are not usable, or the
            descriptor cannot stand in a prompt.
    """
    if descriptor and not (descriptor.strip() and descriptor.isprintable()):
        raise ValueError(f"the descriptor is a word for what all classes are, such as mushroom, got {descriptor!r}")
    kind, _, argument = name.partition(":")
    dataset: Dataset = registry.load("dataset", kind)(argument)
    return dataclasses.replace(dataset, descriptor=descriptor, superclass="") if descriptor else dataset


def title(name: str) -> str:
    """Title in tables of the long-tail data set with this `Dataset.name`: `CUB-LT IF 100`. Opens no file."""
    kind, _, factor = name.partition(":")
    source = registry.load("dataset", kind)
    prefix = source.title if isinstance(source, Source) else f"{kind.removesuffix('_lt').capitalize()}-LT"
    return f"{prefix} IF {factor}"


def check_split(*, shots: int, val: int) -> None:
    """Checks the numbers of images of a split.

    Raises:
        ValueError: if `shots` or `val` is not positive.
    """
    for name, count in (("shots", shots), ("val", val)):
        if count < 1:
            raise ValueError(f"{name} is a number of images per class, 1 or more, got {count}")
