"""Data sets listed in a CSV or Parquet file with the columns `path`, `label` and optionally `split`."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from bob.datasets._files import Pool
from bob.datasets._names import by_class
from bob.datasets._pictures import read_file

__all__ = ["SUFFIXES", "pooled", "read", "table"]

SUFFIXES = (".csv", ".parquet")
_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(file: Path) -> tuple[tuple[str, ...], tuple[Pool, ...]]:
    """Class names and pictures, by class id; paths are relative to the list's folder.

    Without `split` all pictures are one pool, as in class folders; with it shots are drawn from `train`,
    `test` is the test set and `val`, if there are any, the validation set.

    Raises:
        ValueError: if the list cannot be read, lacks a column or a value, names a picture twice or an unknown split,
            or its labels give no class names.
    """
    rows = table(file, ("path", "label"), optional="split")
    twice = [path for path, count in Counter(path for path, _, _ in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{file} names {twice[0]!r} more than once: leave one line")
    names = by_class(dict.fromkeys(label for _, label, _ in rows), where=file, what="label")
    return tuple(names), pooled(rows, list(names.values()), where=file)


def pooled(rows: Iterable[tuple[str, ...]], labels: list[str], *, where: object) -> tuple[Pool, ...]:
    """(path, label, split) of each picture -> the pictures of each label; an empty split is `train`.

    Raises:
        ValueError: if a split is unknown, or some classes have test pictures and others none.
    """
    sides: dict[str, dict[str, list[str]]] = {label: {"train": [], "val": [], "test": []} for label in labels}
    for path, label, split in rows:
        side = _SIDES.get((split or "train").casefold())
        if side is None:
            raise ValueError(f"{where} has a split {split!r}: wanted train, val (or validation) and test")
        sides[label][side].append(path)
    published = [label for label in labels if sides[label]["test"]]
    held_out = any(sides[label]["val"] for label in labels)
    if len(published) < len(labels) and (published or held_out):
        bare = next(label for label in labels if not sides[label]["test"])
        raise ValueError(f"{where} has splits, but no test pictures of {bare!r}: each class needs some")
    return tuple(Pool(**{side: tuple(paths) for side, paths in sides[label].items()}) for label in labels)


def table(file: Path, columns: tuple[str, ...], *, optional: str) -> list[tuple[str, ...]]:
    """The rows of a CSV or Parquet file: `columns` as text, then the optional column, empty if it does not exist.

    Raises:
        ValueError: if the file cannot be read, or lacks a column or a value.
    """
    content = read_file(file)
    try:
        if file.suffix.lower() == ".parquet":
            parsed = pyarrow.parquet.read_table(io.BytesIO(content))
            present, rows = parsed.column_names, parsed.to_pylist()
        else:
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
            rows, present = list(reader), reader.fieldnames or []
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read ({error}): save it as CSV in UTF-8, or as Parquet") from error
    if lacking := [name for name in columns if name not in present]:
        raise ValueError(
            f"{file} wants the columns {' and '.join(columns)} (and perhaps {optional}), lacks {', '.join(lacking)} and"
            f" has {', '.join(present) or 'none'}: rename them"
        )
    texts = []
    for number, row in enumerate(rows, start=1):
        values = [row[name] for name in columns]
        if any(value is None or value == "" for value in values):
            raise ValueError(f"{file} row {number} has no {columns[values.index(None if None in values else '')]}")
        texts.append((*map(str, values), str(row.get(optional) or "")))
    return texts
