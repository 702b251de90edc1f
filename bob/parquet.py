"""Tables as bytes: Parquet with checksums, each with a manifest in its footer that says where it came from."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bob import files

__all__ = ["columns", "describe", "load", "manifest", "parse", "write"]

_KEY = b"bob.manifest"
_ROW_GROUP = 256  # rows: a unit's images are one group, whose pictures a reader may hold at once


def describe(table: pa.Table, manifest: bytes) -> pa.Table:
    """The table with its manifest, which is JSON."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: manifest})


def write(table: pa.Table, sink: pa.NativeFile) -> None:
    """Writes a table to an open file."""
    # Encoded pictures neither repeat nor shrink: to look whether they do takes as long as to checksum them.
    # As statistics, the first and the last in order would be written twice more, outside the checksums.
    pictures = {field.name: pa.types.is_binary(field.type) for field in table.schema}
    others = [name for name, is_picture in pictures.items() if not is_picture]
    options: dict[str, Any] = {  # typed by pyarrow's stubs as one value for all columns
        "use_dictionary": others,
        "write_statistics": others,
        "compression": {name: "none" if is_picture else "snappy" for name, is_picture in pictures.items()},
    }
    pq.write_table(table, sink, row_group_size=_ROW_GROUP, write_page_checksum=True, **options)


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
