"""Folder or bucket of artefacts, on any pyarrow filesystem: content-addressed, atomic, present = complete.

A unit's path contains a hash of all that the unit depends on, so the same command finds earlier artefacts and makes
only the missing ones. A file exists only when it is whole (`bob.store.files`). A folder's `manifest.json` is written
last, so its presence marks the folder as complete. A table's pages have checksums, so that a flipped bit is detected.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from bob.store import files, parquet
from bob.store.keys import plain
from bob.store.provenance import FORMAT, OtherFormatError, without_keys
from bob.store.tables import check

__all__ = ["Store", "quarantine", "scores"]


def quarantine(target: str) -> str:
    """Returns the path of a unit's rejected rows, next to its table; the file exists only if there are any."""
    return target.removesuffix(".parquet") + ".rejected.parquet"


def scores(target: str) -> str:
    """Returns the path of CLIP's scores of a shard, next to it; the file exists only if the images are filtered."""
    folder, _, name = target.rpartition("/")
    return f"{folder}/{name.replace('part-', 'scores-', 1)}"


@dataclasses.dataclass(frozen=True)
class Store:
    """A folder of artefacts: a local path or a URI such as `s3://bucket/prefix`.

    Paths within are relative, with forward slashes. A store has no open connection, so it can be sent to workers.
    """

    root: str
    """Path or URI; a local path is made absolute, since workers have another current folder."""

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("the output folder has no name: give --out a folder, s3://... or gs://...")
        if any("\ud800" <= letter <= "\udfff" for letter in self.root):
            raise ValueError(f"the output folder {self.root!r} is no UTF-8, which pyarrow cannot open: rename it")
        if "://" not in self.root:
            object.__setattr__(self, "root", os.path.abspath(os.path.expanduser(self.root)))

    def require_writable(self) -> None:
        """Checks that files can be written, by writing one.

        Raises:
            ValueError: if they cannot; says why.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self._create(probe, lambda sink: None)
            self.delete(probe)
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.place()}: {files.words(error)}. Choose another --out, or make it writable"
            ) from error

    def clear_stale(self, *, age: float = 86_400.0) -> int:
        """Deletes temporary files that killed writers left on a local disk; other filesystems have none.

        Args:
            age: least seconds since the last write to a file; a newer one may be another command's.

        Returns:
            The number of deleted files.
        """
        filesystem, base = files.locate(self.root)
        return files.clear_stale(filesystem, base, age=age)

    def exists(self, path: str) -> bool:
        """Whether a file exists, which means that it is complete."""
        filesystem, base = files.locate(self.root)
        return filesystem.get_file_info(f"{base}/{path}").type == fs.FileType.File

    def names(self, folder: str) -> list[str]:
        """Returns the names of a folder's own files, sorted, without temporary ones; none without the folder."""
        filesystem, base = files.locate(self.root)
        infos = filesystem.get_file_info(fs.FileSelector(f"{base}/{folder}", allow_not_found=True))
        names = (PurePosixPath(info.path).name for info in infos if info.type == fs.FileType.File)
        return sorted(name for name in names if not name.startswith("."))

    def present(self, paths: Iterable[str]) -> set[str]:
        """Returns the paths that exist, by one listing per folder: there may be a hundred thousand."""
        wanted = set(paths)
        folders = {path.rpartition("/")[0] for path in wanted}
        return wanted & {f"{folder}/{name}" for folder in folders for name in self.names(folder)}

    def listing(self) -> dict[str, fs.FileInfo]:
        """Lists every file below the root, temporary ones too: path in the store -> size and time.

        Raises:
            ValueError: if the folder does not exist or cannot be listed; says why.
        """
        filesystem, base = files.locate(self.root)
        try:
            infos = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
        except OSError as error:
            reason = files.words(error)
            raise ValueError(f"cannot list {self.place()}: {reason}. Name a folder that `bob run` wrote to") from error
        return {info.path.removeprefix(f"{base}/"): info for info in infos if info.type == fs.FileType.File}

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """Writes one file, atomically: a reader sees all of it or nothing.

        Raises:
            ValueError: if it cannot be written, for example on a full disk; an existing file stays.
        """
        content = pa.py_buffer(data)
        self._write(path, lambda sink: sink.write(content))

    def _write(self, path: str, fill: files.Fill) -> None:
        try:
            self._create(path, fill)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise ValueError(
                f"cannot write {self.place(path)} ({files.words(error)}): all that is complete is kept, and the same"
                f" command resumes once {'there is space' if full else 'it can be written'}"
            ) from error

    def _create(self, path: str, fill: files.Fill) -> None:
        filesystem, base = files.locate(self.root)
        files.create(filesystem, str(PurePosixPath(base, path)), fill)

    def read(self, path: str) -> bytes:
        """Reads a whole file."""
        with self.open(path) as file:
            return file.read()

    def open(self, path: str) -> pa.NativeFile:
        """Opens a file for reading; the caller closes it."""
        filesystem, base = files.locate(self.root)
        return filesystem.open_input_file(f"{base}/{path}")

    def write_json(self, path: str, content: Mapping[str, Any]) -> None:
        """Writes one small JSON file."""
        self.write(path, (json.dumps(plain(content), indent=1) + "\n").encode())

    def delete(self, path: str) -> None:
        """Deletes a file if it exists."""
        filesystem, base = files.locate(self.root)
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{path}")

    def write_table(self, path: str, table: pa.Table, manifest: Mapping[str, Any]) -> None:
        """Writes a Parquet file with its manifest in the footer, atomically."""
        self.write_tables(path, [table], table.schema, manifest)

    def write_tables(
        self, path: str, tables: Iterable[pa.Table], columns: pa.Schema, manifest: Mapping[str, Any]
    ) -> None:
        """Writes the rows of several tables, taken one at a time, to one file like `write_table`."""
        described = parquet.describe(columns, json.dumps(plain(manifest)).encode())
        self._write(path, lambda sink: parquet.write(tables, described, sink))

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Reads a Parquet file.

        Raises:
            ValueError: if it is no readable Parquet file, or of another format; says which, and what to do.
        """
        data = self.read(path)  # outside `damaged`: a lost connection is no damage
        with self.damaged(path):
            origin = parquet.manifest(parquet.columns(pa.BufferReader(data)), default={})
        self.require_format(path, origin)  # before the columns, which another format may not have
        with self.damaged(path):
            return parquet.parse(data, columns=columns)

    def read_checked(self, path: str, columns: pa.Schema, *, least: int = 0) -> pa.Table:
        """Reads a Parquet file and checks it with `tables.check`.

        Raises:
            ValueError: if it is no readable Parquet file, or fails the check; says which, and what to do.
        """
        table = self.read_table(path)
        with self.damaged(path):
            return check(table, columns, least=least)

    def groups(self, path: str) -> parquet.Groups:
        """Opens a Parquet file to be read a row group at a time, within `damaged`.

        Raises:
            ValueError: if its footer cannot be read, or is of another format; says which, and what to do.
        """
        with self.damaged(path):
            groups = parquet.Groups(functools.partial(self.open, path))
            origin = parquet.manifest(groups.columns, default={})
        self.require_format(path, origin)
        return groups

    @contextlib.contextmanager
    def damaged(self, path: str) -> Iterator[None]:
        """Adds the file's name and what to do to a ValueError that is raised inside the block.

        Raises:
            ValueError: the error with these additions.
        """
        try:
            yield
        except ValueError as error:
            raise ValueError(
                f"{self.place(path)} is damaged ({error}): delete it, and the same command makes it again"
            ) from error

    def manifest(self, path: str) -> dict[str, Any]:
        """Reads the manifest in a Parquet file's footer, or a `manifest.json`.

        Raises:
            ValueError: if the manifest is missing, cannot be read or is of another format; says why.
        """
        if path.endswith(".json"):
            content = parquet.load(self.read(path))
        else:
            with self.open(path) as file:
                content = parquet.manifest(parquet.columns(file))
        self.require_format(path, content)
        return content

    def require_format(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Refuses a file that another version of bob wrote.

        Raises:
            OtherFormatError: if the manifest has another format.
        """
        version = manifest.get("format", FORMAT)
        if version != FORMAT:
            raise OtherFormatError(
                f"{self.place(path)} was written by another version of bob (format {version}, this one reads format"
                f" {FORMAT}): use that version, or another --out"
            )

    def scratch(self, name: str) -> str:
        """Returns a folder below the root for state that may be deleted, as a path or URI for Ray."""
        if "://" not in self.root:
            return f"{self.root}/scratch/{name}"
        address, mark, options = self.root.partition("?")
        return f"{address.rstrip('/')}/scratch/{name}{mark}{options}"

    def place(self, path: str = "") -> str:
        """Returns a file's location for messages: without a URI's options and access keys."""
        root = self.root
        if "://" in root:
            root = without_keys(root.partition("?")[0])
        return f"{root.rstrip('/')}/{path}".rstrip("/")
