"""Data sets of picture files: the pictures of each class and their split."""

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
"""The paper's larger number of shots, reserved for training even if fewer are asked for."""

Parts = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Train, val and test paths of one class."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Paths of one class's pictures: the training side, and the published validation and test sets."""

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    """Used whole; empty: drawn from `train`."""
    test: tuple[str, ...] = ()
    """Empty: drawn from `train`."""


@final
@dataclass(frozen=True, kw_only=True)
class Files(Dataset):
    """Pictures in files. A shot's `path` and `image_id` are its path below `root`."""

    root: Path
    """Absolute path."""
    pools: tuple[Pool, ...]
    """Indexed by class id."""
    tail: tuple[int, ...] = ()
    """Long tail: number of training images of each class, by class id."""
    chosen: tuple[tuple[str, ...], ...] = ()
    """Training images listed by the user, by class id, instead of drawn ones."""
    read: Callable[[str], bytes] | None = None
    """path -> a picture's bytes, if `root` is no folder of picture files."""

    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The split, drawn per class from one permutation of its pictures, whatever their order in the list.

        Few-shot: the first `shots` are train, the last `val` are val; test is the published test set, or if there
        is none, the pictures in between. So that 5 and 10 shots are tested on the same pictures, the first 10 (at
        most half a class) are kept out of val and test whatever `shots` is. A small class gives fewer for val.

        Long tail: val is taken from a permutation of the published test side, test is the rest of it.
        Without a test side, train is from the first half of the class's permutation, rounded down.

        Raises:
            ValueError: if a class has too few pictures, or a file cannot be read; names the class or file.
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
        """All pictures of the training side, whatever the number of shots or the long tail."""
        entries = []
        for class_id, pool in enumerate(self.pools):
            drawn = self._permuted(pool.train, "split", class_id, seed)
            kept = [path for path in drawn if path not in without][:most]
            entries += [(path, class_id, "train") for path in kept]
        return self._shots(entries)

    def facts(self, path: str) -> tuple[str, int, int]:
        """SHA-1, width and height; the size is 0 x 0 if the header is broken, which `open` then reports.

        Raises:
            ValueError: if the file cannot be read; names the file.
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
            ValueError: if the file is missing, truncated, no picture, or has changed since the split was
                drawn; names the file.
        """
        if self.read is not None:
            return decode(self.read(shot.path), f"{self.root}/{shot.path}", sha1=shot.sha1)
        return open_picture(self.root / shot.path, sha1=shot.sha1)

    @property
    def address(self) -> str:
        """The name, with the folder of a published data set: `$BOB_DATA` may differ on another machine."""
        return self.name if self.name.startswith("folder:") else f"{self.name}:{self.root}"

    def holds(self, folder: Path) -> bool:
        """Whether `folder` is the data set's root or lies in it."""
        return folder.resolve().is_relative_to(self.root.resolve())

    def _shots(self, entries: Sequence[tuple[str, int, str]]) -> tuple[Shot, ...]:
        """Shots of (path, class id, split) entries, their files read."""
        with ThreadPoolExecutor() as threads:  # reading and hashing release the GIL
            facts = threads.map(self.facts, (path for path, _, _ in entries))
            return tuple(self._shot(*entry, *fact) for entry, fact in zip(entries, facts, strict=True))

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
            tested = self._permuted(pool.test, "judge", class_id, seed)
            half = len(drawn) if tested else len(drawn) // 2
            return self._long_tail(class_id, drawn[:half], tested or drawn[half:], shots, val)
        return self._few_shots(class_id, drawn, shots, val)

    def _few_shots(self, class_id: int, drawn: Sequence[str], shots: int, val: int) -> Parts:
        pool = self.pools[class_id]
        for_val, for_test = int(not pool.val), int(not pool.test)
        self._require(class_id, len(drawn), shots, f"{for_val} for val and {for_test} for test", for_val + for_test)
        kept = max(shots, min(_POOL, len(drawn) // 2))
        last = len(drawn) - min(val, (len(drawn) - kept) // (1 + for_test))
        return drawn[:shots], pool.val or drawn[: last - 1 : -1], pool.test or drawn[kept:last]

    def _long_tail(self, class_id: int, drawn: Sequence[str], tested: Sequence[str], shots: int, val: int) -> Parts:
        self._require(class_id, len(drawn), shots, "that may be trained on", 0)
        self._require(class_id, len(tested), 0, "1 for val and 1 for test", 2)
        val = min(val, len(tested) - 1)
        return drawn[:shots], tested[:val], sorted(tested[val:])

    def _require(self, class_id: int, count: int, shots: int, more: str, needs: int) -> None:
        if count >= shots + needs:
            return
        pool = self.pools[class_id]
        where = self.root / os.path.commonpath([os.path.dirname(path) for path in pool.train] or [""])
        raise ValueError(
            f"class {self.class_names[class_id]!r} has {count} pictures in {where}, but {shots} shots need"
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
    """Facts of a file, cached; `size` and `modified` invalidate the entry when the file changes."""
    return describe(read_file(file))
