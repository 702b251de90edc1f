"""A folder for each class, and metadata.csv: as torchvision's ImageFolder and *datasets*' imagefolder read it."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CONFIG", "LOAD", "folders", "write"]

CONFIG = {"data_files": [{"split": "train", "path": ["metadata.csv", "**/*.png"]}]}
LOAD = """from torchvision.datasets import ImageFolder

images = ImageFolder("FOLDER")  # classes in the order of their folders' names

from datasets import load_dataset

images = load_dataset("imagefolder", data_dir="FOLDER", split="train")
images[0]["image"], images[0]["label"], images[0]["class_name"]  # the rest is metadata.csv"""

_SPLIT = re.compile(
    r"(?<![^-._ 0-9])(train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?|eval(?:uation)?)(?![^-._ 0-9])"
)
"""Words in a folder's name by which *datasets* tells training from test images."""
_LONGEST = 255
"""Bytes of a name, on most disks."""


def write(shards: Iterable[Sequence[Mapping[str, Any]]], class_names: Sequence[str], folder: Path) -> Counter[int]:
    """Writes CLASS/IMAGE.png and metadata.csv below a folder.

    Returns:
        Class id -> images.

    Raises:
        ValueError: if a class's name is too long for a folder.
    """
    counts: Counter[int] = Counter()
    called = folders(class_names)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in (row for rows in shards for row in rows):
            said = {name: value for name, value in row.items() if name != "image"}
            if not counts:
                writer.writerow(["file_name", *said])
            place = folder / called[row["label"]]
            place.mkdir(exist_ok=True)
            (place / f"{row['request_id']}.png").write_bytes(row["image"])
            texts = [json.dumps(value) if isinstance(value, list) else value for value in said.values()]
            writer.writerow([f"{place.name}/{row['request_id']}.png", *texts])
            counts[row["label"]] += 1
    return counts


def folders(class_names: Sequence[str]) -> list[str]:
    """What the classes' folders are called: as the classes, but for what a disk or a reader would misunderstand.

    That stands as in an address, `a/b` as `a%2Fb`: `urllib.parse.unquote` gives each class's name back.

    Raises:
        ValueError: if a name is too long.
    """
    held = Counter(name.casefold() for name in class_names)
    called = [_folder(name, alone=held[name.casefold()] == 1) for name in class_names]
    for name in called:
        if len(name.encode()) > _LONGEST:
            raise ValueError(f"a folder's name has {_LONGEST} bytes at most, but a class needs {name!r}: export to hf")
    return called


def _folder(name: str, *, alone: bool) -> str:
    """`alone`: no other class is called the same but for capitals, which some disks take for small letters."""
    last = len(name) - 1
    kept = (
        _plain(c) and not _awkward(c, first=k == 0, last=k == last) and (alone or c == c.lower())
        for k, c in enumerate(name)
    )
    safe = "".join(letter if keep else _quoted(letter) for letter, keep in zip(name, kept, strict=True))
    return _SPLIT.sub(lambda word: word[0][:-1] + _quoted(word[0][-1]), safe)


def _plain(letter: str) -> bool:
    return letter.isprintable() and letter not in '/\\%:*?"<>|[]{}'


def _awkward(letter: str, *, first: bool, last: bool) -> bool:
    """A leading dot or `__` hides a folder; a blank or dot at the end is lost on some disks."""
    return (first and letter in "._ ") or (last and letter in ". ")


def _quoted(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())
