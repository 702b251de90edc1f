"""The user's own pictures, `folder:/data/mushrooms`: class folders, a list, or a saved Hugging Face data set."""

import functools
from pathlib import Path

from bob.datasets import _manifest, _saved
from bob.datasets._files import Files, Pool
from bob.datasets._names import by_class
from bob.datasets._pictures import readable

__all__ = ["dataset"]

_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def dataset(argument: str) -> Files:
    """The data set of the pictures at `argument`; classes in natural order (`2` before `10`).

    `argument` is a folder with one sub-folder of pictures per class, named as the class with `_` read as a blank, where
    hidden files and folders are skipped; or a CSV or Parquet file (`_manifest`); or a folder that `save_to_disk` wrote
    (`_saved`).

    Raises:
        ValueError: if the place does not exist, cannot be read or has no classes, or two
            class names are the same but for capitals, which text encoders ignore.
    """
    if not argument:
        raise ValueError("folder needs the folder of the pictures after a colon: write folder:/data/mushrooms")
    place = Path(argument).expanduser().absolute()
    _text(place)
    files = functools.partial(Files, name=f"folder:{argument}", descriptor="object")
    with readable(place):
        if place.is_file() and place.suffix.lower() in _manifest.SUFFIXES:
            names, pools = _manifest.read(place)
            return files(class_names=names, root=place.parent, pools=pools)
        if not place.is_dir():
            what = "is no folder" if place.exists() else "does not exist"
            raise ValueError(
                f"folder:{argument} wants a folder with one sub-folder per class, or a .csv or .parquet file that lists"
                f" pictures, but {place} {what}"
            )
        if _saved.is_saved(place):
            names, pools, rows = _saved.read(place)
            return files(class_names=names, root=place, pools=pools, read=rows)
        children = [child.name for child in place.iterdir() if not child.name.startswith(".") and child.is_dir()]
    if not children:
        raise ValueError(
            f"folder:{argument} wants a folder with one sub-folder per class, but {place} has no sub-folders:"
            f" put the pictures of each class into a folder of the class's name"
        )
    folders = by_class(children, where=place, what="sub-folder")
    pools = tuple(Pool(train=tuple(_pictures(place, folder))) for folder in folders.values())
    return files(class_names=tuple(folders), root=place, pools=pools)


def _pictures(root: Path, class_folder: str) -> list[str]:
    """Paths below `root` of all pictures in a class's folder and its sub-folders."""
    pictures: list[str] = []

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
                pictures.append(_text(child.relative_to(root)))

    with readable(root / class_folder):
        walk(root / class_folder, (root.resolve(),))
    return sorted(pictures)


def _text(path: Path) -> str:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{str(path)!r} is no UTF-8, which a table cannot hold: rename the file") from error
    return path.as_posix()
