"""Data sets that are files: which pictures each class has, and how they are divided (methods.md 3.6, 3.7)."""

import functools
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from bob.core.seeds import derive
from bob.core.types import Shot
from bob.datasets import Dataset, check_split
from bob.datasets._pictures import decode, describe, open_picture, read_file, readable

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Files", "Pool"]

_POOL = 10
"""The paper's larger number of shots: so many are kept for training even where fewer are asked for."""

Parts = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Of one class: train, val and test, as paths."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The pictures of one class, as paths: what may be trained on, and what is published as validation and test."""

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    """All of it is used; empty: drawn from `train`."""
    test: tuple[str, ...] = ()
    """Empty: drawn from `train`."""


@final
@dataclass(frozen=True, kw_only=True)
class Files(Dataset):
    """Pictures in files. A shot's `path` and `image_id` are its path below `root`."""

    root: Path
    """Absolute."""
    pools: tuple[Pool, ...]
    """Indexed by class id."""
    tail: tuple[int, ...] = ()
    """Of a long tail: training images of each class, by class id."""
    chosen: tuple[tuple[str, ...], ...] = ()
    """Training images that the user names, by class id, in the place of drawn ones."""
    read: Callable[[str], bytes] | None = None
    """path -> a picture's bytes, where `root` is no folder of picture files."""

    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The split, drawn per class from one permutation of its pictures, whatever order they are listed in.

        Few-shot: the first `shots` are train, the last `val` are val; test is the published one. Where there is
        none it is what lies between. So that 5 and 10 shots are judged on the same pictures, the first 10 (at
        most half a class) are kept out of val and test whatever `shots` is. A small class gives fewer for val.

        Long tail: val is taken from a permutation of the published test side, test is the rest of that.
        Where there is none, train is from the first half of the class's permutation, rounded down.

        Raises:
            ValueError: if a class has too few pictures, or a file cannot be read; names it.
        """
        check_split(shots=1 if self.tail else shots, val=val)
        parts = [self._divide(class_id, shots, val, seed) for class_id in range(len(self.pools))]
        return self._shots(
            [
                (path, class_id, split)
                for place, split in enumerate(("train", "val", "test"))
                for class_id, part in enumerate(parts)
                for path in part[place]
            ]
        )

    def training_side(self, *, most: int, seed: int, without: Collection[str]) -> tuple[Shot, ...]:
        """All that may be trained on, a class's few shots or its place in a tail notwithstanding."""
        wanted = []
        for class_id, pool in enumerate(self.pools):
            drawn = self._permuted(pool.train, "split", class_id, seed)
            kept = [path for path in drawn if path not in without][:most]
            wanted += [(path, class_id, "train") for path in kept]
        return self._shots(wanted)

    def facts(self, path: str) -> tuple[str, int, int]:
        """SHA-1, width and height; the size is 0 x 0 where the header is broken, which `open` then reports.

        Raises:
            ValueError: if the file cannot be read; names it.
        """
        if self.read is not None:
            return describe(self.read(path))
        file = self.root / path
        with readable(file):
            status = file.stat()
        return _facts(file, status.st_size, status.st_mtime_ns)

    def open(self, shot: Shot) -> "Image.Image":
        """The picture, upright and RGB.

        Raises:
            ValueError: if the file is gone, truncated, no picture, or not the one that the split was
                drawn from; names the file.
        """
        if self.read is not None:
            return decode(self.read(shot.path), f"{self.root}/{shot.path}", sha1=shot.sha1)
        return open_picture(self.root / shot.path, sha1=shot.sha1)

    @property
    def address(self) -> str:
        """The name, and where the files of a published data set lie: elsewhere `$BOB_DATA` may be another."""
        return self.name if self.name.startswith("folder:") else f"{self.name}:{self.root}"

    def holds(self, folder: Path) -> bool:
        """Whether `folder` is the data set's own or lies in it."""
        return folder.resolve().is_relative_to(self.root.resolve())

    def _shots(self, wanted: Sequence[tuple[str, int, str]]) -> tuple[Shot, ...]:
        """(path, class id, split) of each, read."""
        with ThreadPoolExecutor() as threads:  # reading and hashing let others work
            facts = threads.map(self.facts, (path for path, _, _ in wanted))
            return tuple(self._shot(*of, *known) for of, known in zip(wanted, facts, strict=True))

    def _divide(self, class_id: int, shots: int, val: int, seed: int) -> Parts:
        pool = self.pools[class_id]
        drawn = self._permuted(pool.train, "split", class_id, seed)
        if self.chosen:
            chosen = self.chosen[class_id]
            drawn = [*chosen, *(path for path in drawn if path not in chosen)]
            shots = len(chosen)
        elif self.tail:
            shots = self.tail[class_id]
        if self.tail:
            judged = self._permuted(pool.test, "judge", class_id, seed)
            half = len(drawn) if judged else len(drawn) // 2
            return self._long_tail(class_id, drawn[:half], judged or drawn[half:], shots, val)
        return self._few_shots(class_id, drawn, shots, val)

    def _few_shots(self, class_id: int, drawn: Sequence[str], shots: int, val: int) -> Parts:
        pool = self.pools[class_id]
        for_val, for_test = int(not pool.val), int(not pool.test)
        self._require(class_id, len(drawn), shots, f"{for_val} for val and {for_test} for test", for_val + for_test)
        kept = max(shots, min(_POOL, len(drawn) // 2))
        last = len(drawn) - min(val, (len(drawn) - kept) // (1 + for_test))
        return drawn[:shots], pool.val or drawn[: last - 1 : -1], pool.test or drawn[kept:last]

    def _long_tail(self, class_id: int, drawn: Sequence[str], judged: Sequence[str], shots: int, val: int) -> Parts:
        self._require(class_id, len(drawn), shots, "that may be trained on", 0)
        self._require(class_id, len(judged), 0, "1 for val and 1 for test", 2)
        val = min(val, len(judged) - 1)
        return drawn[:shots], judged[:val], sorted(judged[val:])

    def _require(self, class_id: int, there: int, shots: int, more: str, needs: int) -> None:
        if there >= shots + needs:
            return
        pool = self.pools[class_id]
        where = self.root / os.path.commonpath([os.path.dirname(path) for path in pool.train] or [""])
        raise ValueError(
            f"class {self.class_names[class_id]!r} has {there} pictures in {where}, but {shots} shots need"
            f" {shots + needs} ({more}): add pictures, ask for fewer shots, or take the class out"
        )

    def _permuted(self, files: Sequence[str], purpose: str, class_id: int, seed: int) -> list[str]:
        kind = self.name.partition(":")[0]
        rng = np.random.default_rng(derive(kind, purpose, seed, self.class_names[class_id]))
        ordered = sorted(files)
        return [ordered[k] for k in rng.permutation(len(ordered))]

    def _shot(self, path: str, class_id: int, split: str, sha1: str, width: int, height: int) -> Shot:
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


@functools.cache
def _facts(file: Path, size: int, modified: int) -> tuple[str, int, int]:
    """`size` and `modified` are there to forget what was known of a file that has changed since."""
    return describe(read_file(file))
