"""Data sets: one file each, holding `dataset`, a function from its argument to a `Dataset`.

    bob/datasets/x.py:   def dataset(argument: str) -> Dataset: ...

The argument is what the user wrote after the colon (`folder:/data/mushrooms`); it may be empty.
"""

import abc
import dataclasses
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bob import registry
from bob.types import Shot

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Dataset", "check_split", "load", "open_picture"]


@dataclass(frozen=True, kw_only=True)
class Dataset(abc.ABC):
    """Pictures with labels, and the words that prompts are made of. Final leaves only."""

    name: str
    """As the user wrote it, argument included."""
    descriptor: str
    """One word for what all classes are; the article in the templates is always `a`."""
    class_names: tuple[str, ...]
    """Indexed by class id."""

    @abc.abstractmethod
    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The few-shot split: `shots` train, `val` val images per class, and the whole test set.

        Ordered by split (train, val, test), class id, rank. Nested: the 5-shot set of a seed is
        part of its 10-shot set, and val and test are the same for both.

        Raises:
            ValueError: if a class has too few images; names it and how many it has.
        """

    @abc.abstractmethod
    def open(self, shot: Shot) -> "Image.Image":
        """The picture, upright and RGB.

        Raises:
            ValueError: if the file is gone, truncated or no picture; names the file.
        """


def load(name: str, descriptor: str = "") -> Dataset:
    """The data set that the user called `name`, for instance `folder:/data/mushrooms`.

    Args:
        name: a file of this folder, its argument after a colon.
        descriptor: the user's word for what all classes are; empty: the data set's own.

    Raises:
        ValueError: if there is no such data set, or its argument or files are not usable.
    """
    kind, _, argument = name.partition(":")
    dataset: Dataset = registry.load("dataset", kind)(argument)
    return dataclasses.replace(dataset, descriptor=descriptor) if descriptor else dataset


def check_split(*, shots: int, val: int) -> None:
    """Refuses numbers of images that no split can have.

    Raises:
        ValueError: if `shots` or `val` is not positive.
    """
    for what, count in (("shots", shots), ("val", val)):
        if count < 1:
            raise ValueError(f"{what} is a number of images per class, 1 or more, got {count}")


def open_picture(path: Path) -> "Image.Image":
    """Reads one picture file, turns it upright by its EXIF tag and converts it to RGB.

    What is transparent becomes white; of an animation the first picture is read.

    Raises:
        ValueError: if the file is gone, truncated or no picture; names the file.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8: all but white
                upright = upright.point(lambda value: value / 256)
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            return Image.alpha_composite(white, upright).convert("RGB")
    # Pillow's readers raise any of these on a file that is broken in the right place.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}): replace the file or take it out") from error
