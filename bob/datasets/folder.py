"""Anybody's pictures: a folder with one sub-folder of pictures per class, `folder:/data/mushrooms`."""

import functools
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from bob.datasets import Dataset, check_split, open_picture, picture_size, read_file, readable
from bob.seeds import derive
from bob.types import Shot

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Folder", "dataset"]

_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
_POOL = 10
"""The paper's larger number of shots: so many are kept for training even where fewer are asked for."""


@final
@dataclass(frozen=True, kw_only=True)
class Folder(Dataset):
    """Class sub-folders of pictures. A shot's `path` and `image_id` are its path below `root`."""

    root: Path
    """Absolute."""
    folders: tuple[str, ...]
    """The sub-folder of each class, indexed by class id."""

    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The few-shot split, drawn per class from one permutation of its pictures.

        The first `shots` are train, the last `val` are val, what lies between is test. So that 5
        and 10 shots are judged on the same pictures, the first 10 (at most half a class) are kept
        out of val and test whatever `shots` is. A small class gives val at most half of the rest.

        Raises:
            ValueError: if a class has fewer than `shots` + 2 pictures, a file cannot be read, or
                links go in a circle; names it.
        """
        check_split(shots=shots, val=val)
        parts: dict[str, list[Shot]] = {"train": [], "val": [], "test": []}
        for class_id, folder in enumerate(self.folders):
            files = sorted(_pictures(self.root, folder))
            if len(files) < shots + 2:
                raise ValueError(
                    f"class {self.class_names[class_id]!r} has {len(files)} pictures in {self.root / folder},"
                    f" but {shots} shots need {shots + 2} (1 for val and 1 for test): add pictures, ask for"
                    f" fewer shots, or take the folder out"
                )
            drawn = _permuted(files, seed, self.class_names[class_id])
            pool = max(shots, min(_POOL, len(files) // 2))
            last = len(files) - min(val, (len(files) - pool) // 2)
            for part, names in (("train", drawn[:shots]), ("val", drawn[: last - 1 : -1]), ("test", drawn[pool:last])):
                parts[part] += [self._shot(name, class_id, part) for name in names]
        return (*parts["train"], *parts["val"], *parts["test"])

    def open(self, shot: Shot) -> "Image.Image":
        """The picture, upright and RGB.

        Raises:
            ValueError: if the file is gone, truncated, no picture, or not the one that the split was
                drawn from; names the file.
        """
        return open_picture(self.root / shot.path, sha1=shot.sha1)

    def holds(self, folder: Path) -> bool:
        """Whether `folder` is the data set's own or lies in it."""
        return folder.resolve().is_relative_to(self.root.resolve())

    def _shot(self, path: str, class_id: int, split: str) -> Shot:
        file = self.root / path
        with readable(file):
            status = file.stat()
        sha1, width, height = _facts(file, status.st_size, status.st_mtime_ns)
        return Shot(
            image_id=path,
            sha1=sha1,
            path=path,
            class_id=class_id,
            class_name=self.class_names[class_id],
            split=split,
            width=width,
            height=height,
        )


def dataset(argument: str) -> Folder:
    """The folder that `argument` names, as a data set; classes in natural order (`2` before `10`).

    A class is called what its sub-folder is called, `_` read as a blank. Hidden files and folders
    are passed over.

    Raises:
        ValueError: if there is no such folder, it cannot be read, it has no class sub-folders, or
            two of them give the same class name, capitals apart: text encoders read none.
    """
    if not argument:
        raise ValueError("folder needs the folder of the pictures after a colon: write folder:/data/mushrooms")
    root = Path(argument).expanduser().absolute()
    _text(root)
    with readable(root):
        if not root.is_dir():
            what = "is no folder" if root.exists() else "does not exist"
            raise ValueError(f"folder:{argument} wants a folder with one sub-folder per class, but {root} {what}")
        children = [child.name for child in root.iterdir() if not child.name.startswith(".") and child.is_dir()]
    if not children:
        raise ValueError(
            f"folder:{argument} wants a folder with one sub-folder per class, but {root} has no sub-folders:"
            f" put the pictures of each class into a folder of the class's name"
        )
    folders = _by_class(root, children)
    names = tuple(sorted(folders, key=_natural))
    return Folder(
        name=f"folder:{argument}",
        descriptor="object",
        class_names=names,
        root=root,
        folders=tuple(folders[name] for name in names),
    )


def _by_class(root: Path, children: list[str]) -> dict[str, str]:
    """Class name -> sub-folder."""
    named: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for child in children:
        name = _class_name(root / child)
        twin = spelled.setdefault(name.lower(), child)
        if twin != child:  # !a shows how two names differ that look the same
            raise ValueError(f"{root} has two sub-folders for class {name!r}, {twin!a} and {child!a}: rename one")
        named[name] = child
    return named


def _class_name(folder: Path) -> str:
    # File systems disagree on how an accent is spelt; the seed of a class must not.
    name = " ".join(unicodedata.normalize("NFC", folder.name).replace("_", " ").split())
    if not name or not name.isprintable():
        raise ValueError(f"{str(folder)!r} gives no class name that can stand in a prompt: rename the folder")
    return name


def _natural(name: str) -> tuple[list[str | int], str]:
    pieces = re.split(r"(\d+)", name.casefold())
    return [int(p) if k % 2 else p for k, p in enumerate(pieces)], name


def _permuted(files: list[str], seed: int, class_name: str) -> list[str]:
    rng = np.random.default_rng(derive("folder", "split", seed, class_name))
    return [files[k] for k in rng.permutation(len(files))]


def _pictures(root: Path, class_folder: str) -> list[str]:
    """Paths below `root` of every picture in a class's folder and the folders in it."""
    found: list[str] = []

    def walk(folder: Path, above: tuple[Path, ...]) -> None:
        real = folder.resolve()
        if any(real == place or real in place.parents for place in above):
            raise ValueError(f"{folder} is a link to a folder that it lies in: take it out")
        for child in folder.iterdir():
            if child.name.startswith("."):
                continue
            if child.is_dir():
                walk(child, (*above, real))
            elif child.suffix.lower() in _PICTURES:
                found.append(_text(child.relative_to(root)))

    with readable(root / class_folder):
        walk(root / class_folder, (root.resolve(),))
    return found


def _text(path: Path) -> str:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{str(path)!r} is no UTF-8, which a table cannot hold: rename the file") from error
    return path.as_posix()


@functools.cache
def _facts(file: Path, size: int, modified: int) -> tuple[str, int, int]:
    """SHA-1, width and height; the size is 0 x 0 where the header is broken, which `open` then reports.

    `size` and `modified` are there to forget what was known of a file that has changed since.
    """
    content = read_file(file)
    sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    try:
        return sha1, *picture_size(content)
    except ValueError:
        return sha1, 0, 0
