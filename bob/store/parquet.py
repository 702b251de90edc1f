"""Parquet files with page checksums, and with a manifest of the table's origin in the footer."""

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
"""Rows per row group of a table without pictures: a few MB."""

_KEY = b"bob.manifest"
_PICTURES = 256  # rows per group with pictures: a unit's images are one group, which fits into a reader's memory


def describe(columns: pa.Schema, manifest: bytes) -> pa.Schema:
    """Returns a table's schema with a manifest, given as JSON, in its metadata."""
    return columns.with_metadata({**(columns.metadata or {}), _KEY: manifest})


def write(tables: Iterable[pa.Table], columns: pa.Schema, sink: pa.NativeFile) -> None:
    """Writes the rows of tables, in order, to an open file."""
    # Encoded pictures neither repeat nor compress, and trying takes as long as the checksum. As statistics, the
    # smallest and the greatest picture would be written twice more, outside the checksums.
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
    """Iterable over the row groups of a Parquet file, read one at a time.

    Raises:
        ValueError: on creation and on reading, if the file is no whole Parquet file; says why.
    """

    def __init__(self, open_file: Callable[[], pa.NativeFile]) -> None:
        """Reads the footer.

        Args:
            open_file: opens the file; called for each group, since a connection may not outlive a unit.
        """
        self._open = open_file
        with self._opened() as file:
            parquet_file = pq.ParquetFile(file)
            self.columns: pa.Schema = parquet_file.schema_arrow
            self._footer = parquet_file.metadata
        sizes = [self._footer.row_group(number).num_rows for number in range(self._footer.num_row_groups)]
        self._starts = [0, *itertools.accumulate(sizes)]
        self._last: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[pa.Table]:
        return map(self._group, range(len(self._starts) - 1))

    def slice(self, start: int, size: int) -> pa.Table:
        """Returns rows `start` to `start + size`, or fewer at the end; caches the last group for the next call."""
        first = bisect.bisect_right(self._starts, start) - 1
        last = bisect.bisect_left(self._starts, min(start + size, len(self)))
        groups = [self._group(number) for number in range(first, last)]
        return pa.concat_tables([self.columns.empty_table(), *groups]).slice(start - self._starts[first], size)

    def _group(self, number: int) -> pa.Table:
        if number not in self._last:
            self._last.clear()  # never two groups in memory
            with self._opened() as file:
                parquet_file = pq.ParquetFile(file, metadata=self._footer, page_checksum_verification=True)
                self._last[number] = parquet_file.read_row_group(number)
        return self._last[number]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pa.NativeFile]:
        with self._open() as file:
            try:
                with _damage_as_words():
                    yield file
            except ValueError:
                self._open().close()  # raises OSError if the connection is lost, which is no damage
                raise


@contextlib.contextmanager
def spooled(tables: Iterable[pa.Table], columns: pa.Schema) -> Iterator[Groups]:
    """Writes tables to a temporary file and yields its row groups, which can be read repeatedly.

    Raises:
        ValueError: if the temporary folder cannot be written to; says what to do.
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
    """Parses the bytes of a Parquet file, verifying the checksum of each page.

    Raises:
        ValueError: if the bytes are no whole Parquet file; says why.
    """
    with _damage_as_words():
        return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)


def columns(file: pa.NativeFile) -> pa.Schema:
    """Reads the schema of a Parquet file from its footer.

    Raises:
        ValueError: if the footer cannot be read; says why.
    """
    with _damage_as_words():
        return pq.read_schema(file)


def manifest(columns: pa.Schema, *, default: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the manifest in a table's schema.

    Args:
        columns: the schema.
        default: result for a schema without a manifest.

    Raises:
        ValueError: if the manifest cannot be read, or is missing and there is no default.
    """
    text = (columns.metadata or {}).get(_KEY)
    if text is None and default is not None:
        return dict(default)
    return load(text or b"")


def load(text: bytes) -> dict[str, Any]:
    """Parses a manifest's JSON.

    Raises:
        ValueError: if the text is no JSON object.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError("its manifest is missing or cannot be read") from error
    if not isinstance(content, dict):
        raise ValueError("its manifest is no JSON object")
    return content


@contextlib.contextmanager
def _damage_as_words() -> Iterator[None]:
    """Turns Arrow's errors about broken bytes into ValueErrors of one line."""
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(files.words(error)) from error
