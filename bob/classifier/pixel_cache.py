"""Decoded pictures on the node's own disk: one memory-mapped array, made once and shared by all processes there.

Decoding is what a sweep would do most of: 14 ms for a 512 px PNG, in each of its trainings (methods.md 7.1).
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
"""Seconds after its last use that an array is kept."""


def folder() -> Path:
    """Where the arrays lie: `$BOB_CACHE`, or a folder of the user's in the system's temporary one."""
    return Path(os.environ.get("BOB_CACHE") or Path(tempfile.gettempdir(), f"bob-{user()}"))


def array(key: str, shape: tuple[int, ...], pictures: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """The pictures that `key` stands for, uint8 of `shape`, read-only.

    Of several processes that ask at once one decodes and the others wait for it. A file is there only when it is
    whole; one that nobody has used for two weeks is deleted when another is made. Where the disk is full or may not be
    written to, the array is made in memory, each time.

    Args:
        key: a hash of all that the pictures depend on.
        shape: (n, height, width, 3).
        pictures: decodes them, in order; whatever it raises is raised here.
    """
    if not shape[0]:
        return np.zeros(shape, np.uint8)
    place = folder()
    file = place / f"{key}.npy"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (place / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, or its holder dies
            if (found := _whole(file, shape)) is None:
                _clear(place)
                _make(file, shape, pictures)
                found = _whole(file, shape)
    except OSError as error:
        why = f"{place} cannot hold them ({error.strerror}): set BOB_CACHE to a folder that can"
        print(f"pictures are decoded in memory, for {why}", flush=True)
        return np.stack(list(pictures()))
    assert found is not None
    return found


def _whole(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        found = np.load(file, mmap_mode="r")
        os.utime(file)
    except (FileNotFoundError, ValueError, EOFError):  # ValueError: cut short, as by a loss of power
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None


def _make(file: Path, shape: tuple[int, ...], pictures: Callable[[], Iterable[np.ndarray]]) -> None:
    temporary = file.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as sink:  # not through a memory map, to which a full disk is a fatal signal
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(sink, header)
            for picture in pictures():
                sink.write(np.ascontiguousarray(picture).data)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _clear(place: Path) -> None:
    """Processes that have a deleted array mapped keep it."""
    for file in place.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process clears too
            if file.suffix in (".npy", ".lock", ".tmp") and time.time() - file.stat().st_mtime > _KEEP:
                file.unlink()
