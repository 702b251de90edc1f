"""Cache of decoded images on the node's disk: a memory-mapped array, made once and shared by all processes of the node.

Without it a sweep would spend most of its time decoding: 14 ms for a 512 px PNG, in each of its trainings.
"""

import contextlib
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bob.store import user

__all__ = ["array", "folder"]

_KEEP = 14 * 86_400.0
"""Seconds that an array is kept after its last use."""


def folder() -> Path:
    """Folder of the arrays: `$BOB_CACHE`, or one of the user's in the system's temporary folder."""
    return Path(os.environ.get("BOB_CACHE") or Path(tempfile.gettempdir(), f"bob-{user()}"))


def array(key: str, shape: tuple[int, ...], pictures: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """The images of a key, uint8 of `shape`, read-only.

    Of several processes that ask at the same time one decodes and the others wait for it. A file appears only when it
    is complete; one that has not been used for two weeks is deleted when another is made. If the disk is full or
    read-only, the array is made in memory, each time.

    Args:
        key: hash of all that the images depend on.
        shape: (n, height, width, 3).
        pictures: decodes the images, in order; called only if they are not cached. Its errors are raised here.
    """
    if not shape[0]:
        return np.zeros(shape, np.uint8)
    directory = folder()
    file = directory / f"{key}.npy"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, or its process dies
            if (cached := _load(file, shape)) is None:
                _clear(directory)
                _make(file, shape, pictures)
                cached = _load(file, shape)
    except OSError as error:
        why = f"{directory} cannot hold them ({error.strerror}): set BOB_CACHE to a folder that can"
        print(f"pictures are decoded in memory, for {why}", flush=True)
        return np.stack(list(pictures()))
    assert cached is not None
    return cached


def _load(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached array, whose time of last use is now; None if it is missing or damaged."""
    try:
        pixels = np.load(file, mmap_mode="r")
        os.utime(file)
    except (FileNotFoundError, ValueError, EOFError):  # ValueError: truncated, as by a loss of power
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _make(file: Path, shape: tuple[int, ...], pictures: Callable[[], Iterable[np.ndarray]]) -> None:
    """Writes the array under a temporary name and renames it."""
    temporary = file.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as sink:  # not a memory map: there a full disk is a fatal signal
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(sink, header)
            for picture in pictures():
                sink.write(np.ascontiguousarray(picture).data)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _clear(directory: Path) -> None:
    """Deletes what has not been used for long; processes that have such an array mapped keep it."""
    for file in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may clear at the same time
            if file.suffix in (".npy", ".lock", ".tmp") and time.time() - file.stat().st_mtime > _KEEP:
                file.unlink()
