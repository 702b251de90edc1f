"""Reader of Hugging Face image data sets written by `save_to_disk`: Arrow streams and JSON files."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bob.datasets._files import Pool
from bob.datasets._manifest import pooled
from bob.datasets._names import by_class
from bob.datasets._pictures import read_file

__all__ = ["Rows", "is_saved", "read"]

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


@dataclass(frozen=True)
class Rows:
    """Callable from `train/17` to the bytes of the picture in row 17 of the part `train`."""

    root: Path
    column: str
    """Name of the column with the pictures."""

    def __call__(self, path: str) -> bytes:
        """A picture's bytes.

        Raises:
            ValueError: if the row does not exist or has no picture.
        """
        part, _, row = path.rpartition("/")
        rows = _table(_folder(self.root, part))
        if not row.isdigit() or int(row) >= len(rows):
            raise ValueError(f"{self.root} has no picture {path!r}: was the split drawn from another data set?")
        content = rows[self.column][int(row)].as_py()["bytes"]
        if content is None:
            raise ValueError(f"{self.root} holds the path of picture {path}, not the picture: save it with pictures")
        return content


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / _DICT).is_file() or (folder / _STATE).is_file()


def read(root: Path) -> tuple[tuple[str, ...], tuple[Pool, ...], Rows]:
    """Class names, pictures by class id, and the reader of pictures; splits are kept, no splits give one pool.

    Raises:
        ValueError: if a file is damaged, or the columns are not one of images and one of labels.
    """
    try:
        parts = _json(root / _DICT)["splits"] if (root / _DICT).is_file() else ["train"]
        features = _json(_folder(root, parts[0]) / _INFO)["features"]
        image, label = _column(root, features, "Image"), _column(root, features, "ClassLabel")
        labels = features[label]["names"]
    except (KeyError, IndexError) as error:
        raise ValueError(f"{root} is not as save_to_disk wrote it: it lacks {error}. Save it again") from error
    order = {label: name for name, label in by_class(labels, where=root, what="label").items()}

    def rows() -> Iterator[tuple[str, str, str]]:
        for part in parts:
            for row, number in enumerate(_table(_folder(root, part))[label].to_pylist()):
                if number is None or not 0 <= number < len(labels):
                    raise ValueError(f"{root} has no label for picture {part}/{row}: take it out")
                yield f"{part}/{row}", labels[number], part

    return tuple(order[label] for label in labels), pooled(rows(), labels, where=root), Rows(root, image)


def _folder(root: Path, part: str) -> Path:
    return root / part if (root / _DICT).is_file() else root


def _column(root: Path, features: dict[str, Any], kind: str) -> str:
    names = [name for name, feature in features.items() if feature.get("_type") == kind]
    if len(names) != 1:
        raise ValueError(f"{root} wants one column of type {kind}, has {len(names)}: {', '.join(features)}")
    return names[0]


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(read_file(file))
    except ValueError as error:
        raise ValueError(f"{file} is not as save_to_disk wrote it ({error}): save it again") from error


@functools.lru_cache(maxsize=8)
def _table(folder: Path) -> pa.Table:
    """All rows of one part, memory-mapped and read on access."""
    state = _json(folder / _STATE)
    try:
        files = [folder / file["filename"] for file in state["_data_files"]]
        return pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{folder} is not as save_to_disk wrote it ({error}): save it again") from error
