"""Splits read from a file: a `shots/*.parquet` table, or a list of shots."""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pyarrow as pa

from bob.core.types import Shot
from bob.datasets import Dataset
from bob.datasets._files import Files
from bob.datasets._manifest import table
from bob.datasets._pictures import read_file
from bob.store import parquet, schema, tables

__all__ = ["read"]

_SPLITS = ("train", "val", "test")


def read(file: Path, dataset: Dataset, *, val: int, seed: int) -> tuple[Shot, ...]:
    """The split in a file: train, val and test, in this order.

    A `.parquet` with the columns of `shots/*.parquet` is used unchanged. Any other file lists training shots
    only, and val and test are drawn as `Dataset.split` does: a `.csv` with a column `path` (and optionally `label`),
    or a text with one path per line (and optionally a label after a blank).

    Args:
        file: a local file.
        dataset: data set of the pictures.
        val: validation images per class; used with a list only.
        seed: seed of the run; used with a list only.

    Raises:
        ValueError: if the file cannot be read or names pictures or classes that the data set lacks, a picture has
            changed or is in two splits, or a class lacks pictures.
    """
    if file.suffix.lower() == ".parquet":
        return _checked(file, dataset)
    if not isinstance(dataset, Files) or dataset.read is not None:
        raise ValueError(f"{dataset.name} has no picture files that {file} could list: give a .parquet split")
    chosen = _chosen(file, dataset)
    return replace(dataset, chosen=chosen).split(shots=1, val=val, seed=seed)


def _checked(file: Path, dataset: Dataset) -> tuple[Shot, ...]:
    try:
        rows = tables.check(parquet.parse(read_file(file)), schema.SHOTS).to_pylist()
        if unknown := {row["split"] for row in rows}.difference(_SPLITS):
            raise ValueError(f"splits {sorted(unknown)}, wanted train, val and test")
    except (ValueError, pa.ArrowException) as error:
        raise ValueError(f"{file} is no split ({error}): give a file that `bob run` wrote below shots/") from error
    shots = sorted((Shot(**row) for row in rows), key=lambda shot: _SPLITS.index(shot.split))
    names = dict(enumerate(dataset.class_names))
    if odd := [shot for shot in shots if names.get(shot.class_id) != shot.class_name]:
        raise ValueError(
            f"{file} calls class {odd[0].class_id} {odd[0].class_name!r}, {dataset.name} calls it"
            f" {names.get(odd[0].class_id, 'nothing')!r}: it is the split of another data set"
        )
    twice = [path for path, count in Counter(shot.path for shot in shots).items() if count > 1]
    if twice:
        raise ValueError(f"{file} has {twice[0]!r} more than once: a picture belongs to one split")
    for split in ("train", "val"):
        if bare := set(names.values()) - {shot.class_name for shot in shots if shot.split == split}:
            raise ValueError(f"{file} has no {split} picture of class {min(bare)!r}: each class needs one")
    if shots[-1].split != "test":
        raise ValueError(f"{file} has no test picture: take a split that has some")
    with ThreadPoolExecutor() as threads:
        for shot, facts in zip(shots, threads.map(dataset.facts, (shot.path for shot in shots)), strict=True):
            if facts[0] != shot.sha1:
                raise ValueError(
                    f"{shot.path} of {dataset.name} is not the picture that {file} was drawn from: its SHA-1 is"
                    f" {facts[0]}, wanted {shot.sha1}"
                )
    return tuple(shots)


def _chosen(file: Path, dataset: Files) -> tuple[tuple[str, ...], ...]:
    """Paths by class id, in the order of the list; labels are only checked against the data set's classes."""
    index = _PictureIndex(dataset)
    chosen: dict[str, int] = {}
    labels: dict[str, int] = {}
    for readings in _lines(file):
        path, label = next((reading for reading in readings if index.find(reading[0])), readings[0])
        matches = index.find(path)
        if len(matches) != 1:
            what = f"{len(matches)} pictures are called that: give more of its path" if matches else "there is none"
            raise ValueError(f"{file} lists {path!r}, but of the training pictures of {dataset.name} {what}")
        class_id = index.classes.get(matches[0])
        if class_id is None:
            raise ValueError(f"{file} lists {path!r}, which is no training picture of {dataset.name}: take it out")
        if matches[0] in chosen:
            raise ValueError(f"{file} lists {matches[0]!r} more than once: leave one line")
        if label and labels.setdefault(label, class_id) != class_id:
            raise ValueError(f"{file} gives {path!r} the label {label!r}, as it gives pictures of another class")
        chosen[matches[0]] = class_id
    by_class = tuple(tuple(path for path, k in chosen.items() if k == c) for c in range(len(dataset.class_names)))
    if () in by_class:
        name = dataset.class_names[by_class.index(())]
        raise ValueError(f"{file} lists no picture of class {name!r}: each class needs one")
    return by_class


def _lines(file: Path) -> Iterator[list[tuple[str, str]]]:
    """The possible readings (path, label) of each line."""
    if file.suffix.lower() == ".csv":
        yield from ([(path, label)] for path, label in table(file, ("path",), optional="label"))
        return
    try:
        lines = read_file(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error.reason}): list a path a line") from error
    for line in filter(None, map(str.strip, lines)):
        path, _, label = line.rpartition(" ")  # unless the blank is part of the path
        yield [(line, ""), (path.strip(), label)]


class _PictureIndex:
    """Index of pictures by file name, for paths with other parent folders or another or no suffix."""

    def __init__(self, dataset: Files) -> None:
        self.classes = {path: k for k, pool in enumerate(dataset.pools) for path in pool.train}
        paths = [path for pool in dataset.pools for path in (*pool.train, *pool.val, *pool.test)]
        self._by_name: dict[str, list[str]] = {}
        for path in paths:
            for name in {PurePosixPath(path).name, PurePosixPath(path).stem}:
                self._by_name.setdefault(name, []).append(path)

    def find(self, path: str) -> list[str]:
        """The pictures that share most of the path's trailing folders; on a tie those of the training side."""
        query = PurePosixPath(path)
        matches = self._by_name.get(query.name) or self._by_name.get(query.stem if " " not in query.suffix else "", [])
        ranks = [(_shared(query.parent, PurePosixPath(match).parent), match in self.classes) for match in matches]
        return [match for match, rank in zip(matches, ranks, strict=True) if rank == max(ranks)]


def _shared(one: PurePosixPath, other: PurePosixPath) -> int:
    """Number of trailing names that two folders share."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
