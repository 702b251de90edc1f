"""Data sets: one file each, holding `dataset`, a function from its argument to a `Dataset`.

    bob/datasets/x.py:   def dataset(argument: str) -> Dataset: ...
                   or:   dataset = Source(..., read=...)       of one that is published

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
    """Pictures with labels, and the words that prompts are made of. Final leaves only."""

    name: str
    """What it is, wherever it lies: `aircraft`, `cub_lt:100`. Of one's own pictures, as the user wrote it."""
    descriptor: str
    """One word for what all classes are; the article in the templates is always `a`."""
    class_names: tuple[str, ...]
    """Indexed by class id."""
    val: int = 16
    """Validation images per class, unless the run says otherwise (paper sec. 4.1: 16 or 10; long tail: 5)."""
    medium: tuple[int, int] | None = None
    """Of a long tail: the fewest and the most training images of a medium-shot class, both inclusive. None: each class
    has as many training images as the user asks for."""

    @abc.abstractmethod
    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The split: `shots` train, `val` val images per class, and the whole test set.

        Ordered by split (train, val, test), class id, rank. Nested: the 5-shot set of a seed is
        part of its 10-shot set, and val and test are the same for both. A long tail takes no heed of
        `shots`; it is nested in that of a smaller imbalance factor.

        Raises:
            ValueError: if a class has too few images; names it and how many it has.
        """

    @abc.abstractmethod
    def training_side(self, *, most: int, seed: int, without: Collection[str]) -> tuple[Shot, ...]:
        """What the shots of `split` are drawn from, them included: the whole training data set of a class.

        Ordered by class id, then as the split of this seed draws, so that a class's shots come first; all have the
        split `train`. Only for measuring what has been drawn: nothing is trained on it.

        Args:
            most: images of a class.
            seed: of the split.
            without: image ids to leave out: the test set's, of a data set that publishes none.

        Raises:
            ValueError: if a file cannot be read; names it.
        """

    @abc.abstractmethod
    def facts(self, path: str) -> tuple[str, int, int]:
        """SHA-1, width and height in pixels of the picture that a shot's `path` names.

        Raises:
            ValueError: if there is none; names it.
        """

    @abc.abstractmethod
    def open(self, shot: Shot) -> "Image.Image":
        """The picture, upright and RGB.

        Raises:
            ValueError: if the file is gone, truncated or no picture; names the file.
        """

    @property
    def address(self) -> str:
        """What `load` is to be given on another machine that has the same files."""
        return self.name

    def holds(self, folder: Path) -> bool:
        """Whether files written to `folder` would be taken for pictures or classes of this data set."""
        return False


@dataclass(frozen=True, kw_only=True)
class Source:
    """A published data set: where its files come from and lie, who may use them, and how they are read."""

    title: str
    """What the paper's tables call it."""
    folder: str
    """The official folder, looked for in `$BOB_DATA`."""
    wants: tuple[str, ...]
    """The files and folders in it that are read."""
    origin: tuple[str, ...]
    """Official addresses of the archives."""
    licence: str
    """What binds the user."""
    read: Callable[[str], Dataset]

    def __call__(self, argument: str) -> Dataset:
        """The data set in the folder that the argument names, or else in `$BOB_DATA`."""
        return self.read(argument)

    def place(self, folder: str = "") -> Path:
        """Where it lies or should lie: `folder`, or the official folder in `$BOB_DATA`."""
        return Path(folder).expanduser().absolute() if folder else Path(os.environ.get("BOB_DATA", ""), self.folder)

    def missing(self, place: Path) -> list[str]:
        """What of `wants` is not there."""
        return [name for name in self.wants if not (place / name).exists()]

    def root(self, folder: str = "") -> Path:
        """`place`, with all its files.

        Raises:
            ValueError: if files are missing; says which, where they are wanted and where they come from.
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
    """The data set that the user called `name`, for instance `folder:/data/mushrooms`.

    Args:
        name: a file of this folder, its argument after a colon.
        descriptor: the user's word for what all classes are; empty: the data set's own.

    Raises:
        ValueError: if there is no such data set, its argument or files are not usable, or the
            descriptor cannot stand in a prompt.
    """
    if descriptor and not (descriptor.strip() and descriptor.isprintable()):
        raise ValueError(f"the descriptor is a word for what all classes are, such as mushroom, got {descriptor!r}")
    kind, _, argument = name.partition(":")
    dataset: Dataset = registry.load("dataset", kind)(argument)
    return dataclasses.replace(dataset, descriptor=descriptor) if descriptor else dataset


def title(name: str) -> str:
    """What tables call the long-tail data set whose `Dataset.name` this is: `CUB-LT IF 100`. Opens no file."""
    kind, _, factor = name.partition(":")
    source = registry.load("dataset", kind)
    called = source.title if isinstance(source, Source) else f"{kind.removesuffix('_lt').capitalize()}-LT"
    return f"{called} IF {factor}"


def check_split(*, shots: int, val: int) -> None:
    """Refuses numbers of images that no split can have.

    Raises:
        ValueError: if `shots` or `val` is not positive.
    """
    for what, count in (("shots", shots), ("val", val)):
        if count < 1:
            raise ValueError(f"{what} is a number of images per class, 1 or more, got {count}")
