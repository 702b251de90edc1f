"""Artefacts on any pyarrow filesystem: content-addressed, atomic, present = complete.

A work unit's path holds a hash of all that it depends on, so the same command finds what an
earlier one made and draws only what is missing. On a local disk a file is written under a temporary
name in its own folder and renamed; on S3 or GCS it is one object put. A folder's `manifest.json`
is written last, so its presence means that the folder is complete.
"""

import contextlib
import dataclasses
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bob import schema

__all__ = ["Store", "key", "manifest", "parse", "plain", "provenance", "quarantine", "slug"]

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "timm", "pyarrow", "numpy", "ray")


def key(*parts: Any) -> str:
    """The identity of a work unit: 16 hex digits of the SHA-256 of what it depends on.

    Args:
        parts: dataclasses, mappings, sequences and scalars; never paths or times.
    """
    text = json.dumps([plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def slug(text: str) -> str:
    """A short name for a path: letters, digits and dashes. Not unique, a key stands beside it."""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    return "-".join(part for part in safe.split("-") if part)[-48:].lstrip("-") or "x"


def quarantine(target: str) -> str:
    """Beside a unit's table, the table of the rows that it could not do; there only if there are any."""
    return target.removesuffix(".parquet") + ".rejected.parquet"


def provenance(config: Any, *, seconds: float = 0.0) -> dict[str, Any]:
    """What a manifest says of where an artefact came from."""
    return {
        "config": plain(config),
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "host": platform.node(),
        "user": _user(),
        "seconds": round(seconds, 3),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user need not have a name
        return str(os.getuid())


@dataclasses.dataclass(frozen=True)
class Store:
    """A folder of artefacts: a local path or a URI such as `s3://bucket/prefix`.

    Paths within are relative, with forward slashes. Holds no connection, so it travels to workers.
    """

    root: str

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("the output folder has no name: give --out a folder, s3://... or gs://...")
        if any("\ud800" <= letter <= "\udfff" for letter in self.root):
            raise ValueError(f"the output folder {self.root!r} is no UTF-8, which pyarrow cannot open: rename it")

    def require_writable(self) -> None:
        """Proves that something can be written.

        Raises:
            ValueError: if it cannot; says why.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"")
            filesystem, base = self._open()
            filesystem.delete_file(f"{base}/{probe}")
        except OSError as error:
            raise ValueError(
                f"cannot write to {self.root}: {error}. Choose another --out, or make it writable"
            ) from error

    def exists(self, path: str) -> bool:
        """Whether a file is there, which means that it is complete."""
        filesystem, base = self._open()
        return filesystem.get_file_info(f"{base}/{path}").type == fs.FileType.File

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, sorted; none if it does not exist. Temporary ones excluded."""
        filesystem, base = self._open()
        found = filesystem.get_file_info(fs.FileSelector(f"{base}/{folder}", allow_not_found=True))
        files = (PurePosixPath(info.path).name for info in found if info.type == fs.FileType.File)
        return sorted(name for name in files if not name.startswith("."))

    def files(self) -> dict[str, fs.FileInfo]:
        """Every file below the root, temporary ones too, by one listing: its path within -> its size, its time.

        Raises:
            ValueError: if there is no such folder, or it cannot be listed; says why.
        """
        filesystem, base = self._open()
        try:
            found = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
        except OSError as error:
            raise ValueError(f"cannot list {self.root}: {error}. Name a folder that `bob run` wrote to") from error
        return {info.path.removeprefix(f"{base}/"): info for info in found if info.type == fs.FileType.File}

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """Writes one file, atomically: a reader sees all of it or nothing."""
        filesystem, base = self._open()
        target = PurePosixPath(base, path)
        if not isinstance(filesystem, fs.LocalFileSystem):
            with filesystem.open_output_stream(str(target)) as stream:
                stream.write(data)
            return
        os.makedirs(target.parent, exist_ok=True)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def read(self, path: str) -> bytes:
        """All of one file."""
        filesystem, base = self._open()
        with filesystem.open_input_file(f"{base}/{path}") as file:
            return file.read()

    def write_json(self, path: str, content: Mapping[str, Any]) -> None:
        """Writes one small JSON file."""
        self.write(path, (json.dumps(plain(content), indent=1) + "\n").encode())

    def delete(self, path: str) -> None:
        """Takes one file away if it is there."""
        if self.exists(path):
            filesystem, base = self._open()
            filesystem.delete_file(f"{base}/{path}")

    def write_table(self, path: str, table: pa.Table, manifest: Mapping[str, Any]) -> None:
        """Writes a Parquet file that carries its manifest in its own footer, as one atomic file."""
        metadata = {**(table.schema.metadata or {}), b"bob.manifest": json.dumps(plain(manifest)).encode()}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), sink, row_group_size=64, write_page_checksum=True)
        self.write(path, sink.getvalue())

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file.

        Raises:
            ValueError: if it is no readable Parquet file; says which, and what to do.
        """
        data = self.read(path)  # apart from parsing: a lost connection is no damage
        try:
            return parse(data, columns=columns)
        except ValueError as error:
            raise ValueError(
                f"{self.root}/{path} is damaged ({error}): delete it, and the same command makes it again"
            ) from error

    def read_checked(self, path: str, wanted: pa.Schema, *, least: int = 0) -> pa.Table:
        """One Parquet file that is what a step wrote there: `schema.check` of it.

        Raises:
            ValueError: if it is no readable Parquet file, or not what is wanted; says which, and what to do.
        """
        table = self.read_table(path)
        try:
            return schema.check(table, wanted, least=least)
        except ValueError as error:
            raise ValueError(
                f"{self.root}/{path} is damaged ({error}): delete it, and the same command makes it again"
            ) from error

    def manifest(self, path: str) -> dict[str, Any]:
        """What a Parquet file's footer, or a `manifest.json`, says of where the artefact came from.

        Raises:
            ValueError: if it cannot be read or there is none; says why.
        """
        if path.endswith(".json"):
            return _manifest(self.read(path))
        filesystem, base = self._open()
        with filesystem.open_input_file(f"{base}/{path}") as file, _damage_as_words():
            columns = pq.read_schema(file)
        return manifest(columns)

    def scratch(self, name: str) -> str:
        """A folder below the root for state that may be deleted at any time, as a path or URI that Ray takes."""
        root = self.root if "://" in self.root else os.path.abspath(os.path.expanduser(self.root))
        return f"{root.rstrip('/')}/scratch/{name}"

    def _open(self) -> tuple[fs.FileSystem, str]:
        if "://" in self.root:
            filesystem, base = fs.FileSystem.from_uri(self.root)
            return filesystem, base.rstrip("/")
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(self.root))


def parse(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The bytes of a Parquet file as a table, each page held against its checksum.

    Raises:
        ValueError: if they are no whole Parquet file; says why.
    """
    with _damage_as_words():
        return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)


def manifest(columns: pa.Schema) -> dict[str, Any]:
    """What a table that was read says of where it came from.

    Raises:
        ValueError: if it has no manifest, or none that can be read.
    """
    return _manifest((columns.metadata or {}).get(b"bob.manifest", b""))


def _manifest(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError("its manifest is missing or cannot be read") from error
    if not isinstance(found, dict):
        raise ValueError("its manifest is no table of names and values")
    return found


@contextlib.contextmanager
def _damage_as_words() -> Iterator[None]:
    """Whatever Arrow says of broken bytes, as one line."""
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON's own types; tuples become lists.

    Raises:
        TypeError: for anything else, which has no place in a key or manifest.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"cannot be part of a key or manifest: {type(value).__name__} {value!r}")
