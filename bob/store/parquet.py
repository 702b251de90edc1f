"""Tables as Parquet with checksums, each with a manifest in its footer that says where it came from."""

import bisect
import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bob.store import files

__all__ = ["GROUP", "Groups", "columns", "describe", "load", "manifest", "parse", "spooled", "write"]

GROUP = 1 << 14
"""Rows that are written and read at once of a table without pictures: some MB."""

_KEY = b"bob.manifest"
_PICTURES = 256  # rows: a unit's images are one group, whose pictures a reader may hold at once


def describe(columns: pa.Schema, manifest: bytes) -> pa.Schema:
    """The schema of a table that carries its manifest, which is JSON."""
    return columns.with_metadata({**(columns.metadata or {}), _KEY: manifest})


def write(tables: Iterable[pa.Table], columns: pa.Schema, sink: pa.NativeFile) -> None:
    """Writes tables, one below the other, to an open file."""
    # Encoded pictures neither repeat nor shrink: to look whether they do takes as long as to checksum them.
    # As statistics, the first and the last in order would be written twice more, outside the checksums.
    pictures = {field.name: pa.types.is_binary(field.type) for field in columns}
    others = [name for name, is_picture in pictures.items() if not is_picture]
    options: dict[str, Any] = {  # typed by pyarrow's stubs as one value for all columns
        "use_dictionary": others,
        "write_statistics": others,
        "compression": {name: "none" if is_picture else "snappy" for name, is_picture in pictures.items()},
    }
    size = _PICTURES if any(pictures.values()) else GROUP
    with pq.ParquetWriter(sink, columns, write_page_checksum=True, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=size)


class Groups:
    """A Parquet file that is read one row group at a time, however long it is; iterates over these.

    Raises:
        ValueError: here and when it is read, if it is no whole Parquet file; says why.
    """

    def __init__(self, open_file: Callable[[], pa.NativeFile]) -> None:
        """Reads the footer.

        Args:
            open_file: opens the file, anew for each group, for a connection may not outlive a unit.
        """
        self._open = open_file
        with self._opened() as file:
            found = pq.ParquetFile(file)
            self.columns: pa.Schema = found.schema_arrow
            self._footer = found.metadata
        sizes = [self._footer.row_group(number).num_rows for number in range(self._footer.num_row_groups)]
        self._starts = [0, *itertools.accumulate(sizes)]
        self._last: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[pa.Table]:
        return map(self._group, range(len(self._starts) - 1))

    def slice(self, start: int, size: int) -> pa.Table:
        """Rows `start` to `start + size`, as far as there are any; keeps the last group for those that follow."""
        first = bisect.bisect_right(self._starts, start) - 1
        last = bisect.bisect_left(self._starts, min(start + size, len(self)))
        groups = [self._group(number) for number in range(first, last)]
        return pa.concat_tables([self.columns.empty_table(), *groups]).slice(start - self._starts[first], size)

    def _group(self, number: int) -> pa.Table:
        if number not in self._last:
            self._last.clear()  # not two at once
            with self._opened() as file:
                whole = pq.ParquetFile(file, metadata=self._footer, page_checksum_verification=True)
                self._last[number] = whole.read_row_group(number)
        return self._last[number]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pa.NativeFile]:
        with self._open() as file:
            try:
                with _damage_as_words():
                    yield file
            except ValueError:
                self._open().close()  # raises where the connection is lost, which is no damage
                raise


@contextlib.contextmanager
def spooled(tables: Iterable[pa.Table], columns: pa.Schema) -> Iterator[Groups]:
    """Tables, one below the other, in a temporary file: made once, read as often as need be, never held.

    Raises:
        ValueError: if the temporary folder cannot hold it; says what to do.
    """
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        try:
            with pa.OSFile(file.name, "wb") as sink:
                write(tables, columns, sink)
        except OSError as error:
            raise ValueError(
                f"cannot write to the temporary folder {tempfile.gettempdir()} ({files.words(error)}): make space"
                " there, or set TMPDIR to a folder that has some"
            ) from error
        yield Groups(lambda: pa.OSFile(file.name, "rb"))


def parse(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The bytes of a Parquet file as a table, each page held against its checksum.

    Raises:
        ValueError: if they are no whole Parquet file; says why.
    """
    with _damage_as_words():
        return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)


def columns(file: pa.NativeFile) -> pa.Schema:
    """The schema of a Parquet file, from its footer.

    Raises:
        ValueError: if there is none that can be read; says why.
    """
    with _damage_as_words():
        return pq.read_schema(file)


def manifest(columns: pa.Schema, *, default: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a table says of where it came from.

    Args:
        columns: its schema.
        default: what stands for the manifest of a table that has none.

    Raises:
        ValueError: if it has no manifest and there is no default, or none that can be read.
    """
    text = (columns.metadata or {}).get(_KEY)
    if text is None and default is not None:
        return dict(default)
    return load(text or b"")


def load(text: bytes) -> dict[str, Any]:
    """A manifest from its JSON.

    Raises:
        ValueError: if it is none.
    """
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
        raise ValueError(files.words(error)) from error
