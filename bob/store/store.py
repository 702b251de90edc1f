"""Artefacts on any pyarrow filesystem: content-addressed, atomic, present = complete.

A work unit's path holds a hash of all that it depends on, so the same command finds what an
earlier one made and draws only what is missing. A file is there only when it is whole (`bob.store.files`).
A folder's `manifest.json` is written last, so its presence means that the folder is complete. A table's
pages carry checksums, so that a flipped bit is damage and not another result.
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
    """Beside a unit's table, the table of the rows that it could not do; there only if there are any."""
    return target.removesuffix(".parquet") + ".rejected.parquet"


def scores(target: str) -> str:
    """Beside a shard of images, the table of what CLIP says of them; there only where they are filtered."""
    folder, _, name = target.rpartition("/")
    return f"{folder}/{name.replace('part-', 'scores-', 1)}"


@dataclasses.dataclass(frozen=True)
class Store:
    """A folder of artefacts: a local path or a URI such as `s3://bucket/prefix`.

    Paths within are relative, with forward slashes. Holds no connection, so it travels to workers.
    """

    root: str
    """A local path is made absolute: workers stand elsewhere."""

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("the output folder has no name: give --out a folder, s3://... or gs://...")
        if any("\ud800" <= letter <= "\udfff" for letter in self.root):
            raise ValueError(f"the output folder {self.root!r} is no UTF-8, which pyarrow cannot open: rename it")
        if "://" not in self.root:
            object.__setattr__(self, "root", os.path.abspath(os.path.expanduser(self.root)))

    def require_writable(self) -> None:
        """Proves that something can be written.

        Raises:
            ValueError: if it cannot; says why.
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
        """Deletes the temporary files that killed writers left on a local disk; elsewhere there are none.

        Args:
            age: seconds since a file was last written to; a younger one may be another run's.

        Returns:
            How many were deleted.
        """
        filesystem, base = files.locate(self.root)
        return files.clear_stale(filesystem, base, age=age)

    def exists(self, path: str) -> bool:
        """Whether a file is there, which means that it is complete."""
        filesystem, base = files.locate(self.root)
        return filesystem.get_file_info(f"{base}/{path}").type == fs.FileType.File

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, sorted; none if it does not exist. Temporary ones excluded."""
        filesystem, base = files.locate(self.root)
        found = filesystem.get_file_info(fs.FileSelector(f"{base}/{folder}", allow_not_found=True))
        whole = (PurePosixPath(info.path).name for info in found if info.type == fs.FileType.File)
        return sorted(name for name in whole if not name.startswith("."))

    def present(self, paths: Iterable[str]) -> set[str]:
        """Which of these files are there, by one listing of each folder: they may be a hundred thousand."""
        wanted = set(paths)
        folders = {path.rpartition("/")[0] for path in wanted}
        return wanted & {f"{folder}/{name}" for folder in folders for name in self.names(folder)}

    def listing(self) -> dict[str, fs.FileInfo]:
        """Every file below the root, temporary ones too, by one listing: its path within -> its size, its time.

        Raises:
            ValueError: if there is no such folder, or it cannot be listed; says why.
        """
        filesystem, base = files.locate(self.root)
        try:
            found = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
        except OSError as error:
            reason = files.words(error)
            raise ValueError(f"cannot list {self.place()}: {reason}. Name a folder that `bob run` wrote to") from error
        return {info.path.removeprefix(f"{base}/"): info for info in found if info.type == fs.FileType.File}

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """Writes one file, atomically: a reader sees all of it or nothing.

        Raises:
            ValueError: if it cannot be written, as on a full disk; what was there before stays.
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
        """All of one file."""
        with self.open(path) as file:
            return file.read()

    def open(self, path: str) -> pa.NativeFile:
        """One file, to be read in pieces and closed."""
        filesystem, base = files.locate(self.root)
        return filesystem.open_input_file(f"{base}/{path}")

    def write_json(self, path: str, content: Mapping[str, Any]) -> None:
        """Writes one small JSON file."""
        self.write(path, (json.dumps(plain(content), indent=1) + "\n").encode())

    def delete(self, path: str) -> None:
        """Takes one file away if it is there."""
        filesystem, base = files.locate(self.root)
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{path}")

    def write_table(self, path: str, table: pa.Table, manifest: Mapping[str, Any]) -> None:
        """Writes a Parquet file that carries its manifest in its own footer, as one atomic file."""
        self.write_tables(path, [table], table.schema, manifest)

    def write_tables(
        self, path: str, tables: Iterable[pa.Table], columns: pa.Schema, manifest: Mapping[str, Any]
    ) -> None:
        """The same of tables, one below the other, each of which is asked for when its turn comes."""
        described = parquet.describe(columns, json.dumps(plain(manifest)).encode())
        self._write(path, lambda sink: parquet.write(tables, described, sink))

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file.

        Raises:
            ValueError: if it is no readable Parquet file, or of another format; says which, and what to do.
        """
        data = self.read(path)  # apart from parsing: a lost connection is no damage
        with self.damaged(path):
            origin = parquet.manifest(parquet.columns(pa.BufferReader(data)), default={})
        self.require_format(path, origin)  # before the columns are looked for
        with self.damaged(path):
            return parquet.parse(data, columns=columns)

    def read_checked(self, path: str, wanted: pa.Schema, *, least: int = 0) -> pa.Table:
        """One Parquet file that is what a step wrote there: `schema.check` of it.

        Raises:
            ValueError: if it is no readable Parquet file, or not what is wanted; says which, and what to do.
        """
        table = self.read_table(path)
        with self.damaged(path):
            return check(table, wanted, least=least)

    def groups(self, path: str) -> parquet.Groups:
        """One Parquet file, to be read a row group at a time within `damaged`.

        Raises:
            ValueError: if its footer cannot be read, or is of another format; says which, and what to do.
        """
        with self.damaged(path):
            found = parquet.Groups(functools.partial(self.open, path))
            origin = parquet.manifest(found.columns, default={})
        self.require_format(path, origin)
        return found

    @contextlib.contextmanager
    def damaged(self, path: str) -> Iterator[None]:
        """Where what is wrong with a file is said: names it, and says what to do.

        Raises:
            ValueError: for one that is raised within.
        """
        try:
            yield
        except ValueError as error:
            raise ValueError(
                f"{self.place(path)} is damaged ({error}): delete it, and the same command makes it again"
            ) from error

    def manifest(self, path: str) -> dict[str, Any]:
        """What a Parquet file's footer, or a `manifest.json`, says of where the artefact came from.

        Raises:
            ValueError: if it cannot be read, there is none or it is of another format; says why.
        """
        if path.endswith(".json"):
            found = parquet.load(self.read(path))
        else:
            with self.open(path) as file:
                found = parquet.manifest(parquet.columns(file))
        self.require_format(path, found)
        return found

    def require_format(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Refuses what another version of bob wrote.

        Raises:
            OtherFormatError: if the manifest says so.
        """
        found = manifest.get("format", FORMAT)
        if found != FORMAT:
            raise OtherFormatError(
                f"{self.place(path)} was written by another version of bob (format {found}, this one reads format"
                f" {FORMAT}): use that version, or another --out"
            )

    def scratch(self, name: str) -> str:
        """A folder below the root for state that may be deleted at any time, as a path or URI that Ray takes."""
        if "://" not in self.root:
            return f"{self.root}/scratch/{name}"
        place, mark, options = self.root.partition("?")
        return f"{place.rstrip('/')}/scratch/{name}{mark}{options}"

    def place(self, path: str = "") -> str:
        """Where a file lies, in words for the user: without a URI's options and access keys."""
        root = self.root
        if "://" in root:
            root = without_keys(root.partition("?")[0])
        return f"{root.rstrip('/')}/{path}".rstrip("/")
