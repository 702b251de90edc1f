"""Atomic writing of a file on any pyarrow filesystem.

On a local disk a file is written under a temporary name in its folder, flushed to the disk and renamed. On S3 or GCS it
is one object, which becomes visible when it is complete.
"""

import contextlib
import ctypes
import functools
import os
import re
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

__all__ = ["Fill", "clear_stale", "create", "locate", "words"]

Fill = Callable[[pa.NativeFile], object]
"""Writes a file's content to an open stream, and leaves the stream open."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp|\.probe-[0-9a-f]{32}")
_BUFFER = 1 << 20  # bytes: a table is written in many small pieces


def locate(root: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a folder or URI, and the folder's path on it.

    Raises:
        ValueError: if pyarrow does not know the URI.
    """
    if "://" in root:
        return _connect(root)
    return fs.LocalFileSystem(), root


@functools.lru_cache  # keeps the connections, since each new client needs a handshake
def _connect(root: str) -> tuple[fs.FileSystem, str]:
    uri = root
    if root.startswith("s3://") and "allow_delayed_open" not in root:
        uri += ("&" if "?" in root else "?") + "allow_delayed_open=true"  # one request instead of three up to 10 MiB
    try:
        filesystem, base = fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"cannot open {root!r} ({error}): --out must be a folder, s3://bucket/prefix or gs://bucket/prefix"
        ) from error
    return filesystem, base.rstrip("/")


def create(filesystem: fs.FileSystem, target: str, fill: Fill) -> None:
    """Creates or replaces one file.

    Raises:
        OSError: if the file cannot be written; an existing one stays, and nothing else is left.
    """
    if isinstance(filesystem, fs.LocalFileSystem):
        _create_local(PurePosixPath(target), fill)
        return
    content = pa.BufferOutputStream()
    fill(content)
    with ThreadPoolExecutor(1) as thread:  # in a thread no Ctrl-C falls between opening and closing
        thread.submit(_put, filesystem, target, content.getvalue()).result()


def _create_local(target: PurePosixPath, fill: Fill) -> None:
    os.makedirs(target.parent, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with pa.BufferedOutputStream(pa.OSFile(str(temporary), "wb"), _BUFFER) as stream:
            fill(stream)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _put(filesystem: fs.FileSystem, target: str, content: pa.Buffer) -> None:
    stream = filesystem.open_output_stream(target)
    try:
        stream.write(content)
    except BaseException:
        # Closing the stream would publish the partial content, and so would its destructor: it is never freed.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
        raise
    stream.close()


def clear_stale(filesystem: fs.FileSystem, base: str, *, age: float) -> int:
    """Deletes the temporary files below a local folder that were last written to more than `age` seconds ago.

    Returns:
        The number of deleted files; 0 on S3 and GCS, which have none.
    """
    if not isinstance(filesystem, fs.LocalFileSystem):
        return 0
    cleared = 0
    for folder, _, names in os.walk(base):
        for file in (os.path.join(folder, name) for name in names if _TEMPORARY.fullmatch(name)):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # another command's work, or another user's
                if os.stat(file).st_mtime < time.time() - age:
                    os.unlink(file)
                    cleared += 1
    return cleared


def words(error: Exception) -> str:
    """Returns an error's message on one line; of a system error without the temporary file's name."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else " ".join(str(error).split())
