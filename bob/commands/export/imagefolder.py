"""Export as a folder for each class and metadata.csv, for torchvision's ImageFolder and *datasets*' imagefolder."""

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
"""Words in a folder's name that *datasets* takes for a split."""
_LONGEST = 255
"""Longest name of a folder on most disks, in bytes."""


def write(shards: Iterable[Sequence[Mapping[str, Any]]], class_names: Sequence[str], folder: Path) -> Counter[int]:
    """Writes CLASS/IMAGE.png and metadata.csv below a folder.

    Returns:
        Class id -> images.

    Raises:
        ValueError: if a class's name is too long for a folder.
    """
    counts: Counter[int] = Counter()
    names = folders(class_names)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in (row for rows in shards for row in rows):
            columns = {name: value for name, value in row.items() if name != "image"}
            if not counts:
                writer.writerow(["file_name", *columns])
            place = folder / names[row["label"]]
            place.mkdir(exist_ok=True)
            (place / f"{row['request_id']}.png").write_bytes(row["image"])
            texts = [json.dumps(value) if isinstance(value, list) else value for value in columns.values()]
            writer.writerow([f"{place.name}/{row['request_id']}.png", *texts])
            counts[row["label"]] += 1
    return counts


def folders(class_names: Sequence[str]) -> list[str]:
    """Returns the folder of each class: its name, with characters that a disk or reader misreads percent-encoded.

    `a/b` becomes `a%2Fb`; `urllib.parse.unquote` restores the class's name.

    Raises:
        ValueError: if a name is too long.
    """
    counts = Counter(name.casefold() for name in class_names)
    encoded = [_folder(name, alone=counts[name.casefold()] == 1) for name in class_names]
    for name in encoded:
        if len(name.encode()) > _LONGEST:
            raise ValueError(f"a folder's name has {_LONGEST} bytes at most, but a class needs {name!r}: export to hf")
    return encoded


def _folder(name: str, *, alone: bool) -> str:
    """Encodes a class's name; capitals too unless it is `alone`, as some disks ignore the case of names."""
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
    """Returns whether a reader hides a folder for this first letter, or a disk drops this last one."""
    return (first and letter in "._ ") or (last and letter in ". ")


def _quoted(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())
