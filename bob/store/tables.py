"""Conversion of rows to tables of `bob.store.schema`, and checks of tables that are read back."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from bob.store.schema import METRICS

__all__ = ["check", "fit", "from_rows", "rejection"]

_IDENTITY = {
    "image_id": ["image_id"],
    "id": ["id"],
    "dataset": [*METRICS.names[:-2]],
    "request_id": ["request_id"],
    "row_id": ["row_id"],
    "step": ["target"],
    "run": ["run", "phase", "epoch", "split", "metric"],
    "table": ["table", "row", "column"],
    "statement": ["statement"],
    "class_name": ["class_name"],
}
"""First column of a table -> the columns that identify a row."""


def rejection(row_id: str, step: str, error: Exception) -> dict[str, str]:
    """Returns a row of `schema.REJECTED`."""
    return {"row_id": row_id, "step": step, "error": type(error).__name__, "message": str(error)}


def from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Converts rows to a table of exactly `schema`.

    Raises:
        ValueError: if a row has missing or unknown columns, a null or a wrong type.
    """
    rows, names = list(rows), set(schema.names)
    for row in rows:
        if set(row) != names:
            differing = sorted(set(row) ^ names)
            raise ValueError(f"a row must have the columns {schema.names}; missing or unknown: {differing}")
    try:
        table = pa.Table.from_pylist(rows, schema=schema)
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"a row does not fit its table: {error}") from error
    for column in schema:
        if not column.nullable and table[column.name].null_count:
            raise ValueError(f"column {column.name!r} must not hold nulls, found {table[column.name].null_count}")
    return table


def check(read: pa.Table, schema: pa.Schema, *, least: int = 0) -> pa.Table:
    """Checks a table from a file and returns it with exactly `schema`.

    Args:
        read: the table as it was read.
        schema: one of `bob.store.schema`.
        least: the least number of rows.

    Raises:
        ValueError: if the table does not fit the schema, or rows are missing or repeated; says which.
    """
    fitted = fit(read, schema)
    if len(fitted) < least:
        raise ValueError(f"{len(fitted)} rows, wanted {least}")
    identity = _IDENTITY.get(schema.names[0], [])
    if identity and len(fitted.group_by(identity).aggregate([])) < len(fitted):
        raise ValueError(f"two rows of the same {', '.join(identity)}")
    return fitted


def fit(read: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns a table from a file with exactly `schema`; does not check the rows' values.

    Raises:
        ValueError: if columns are missing, unknown, of another type or hold nulls; says which.
    """
    if sorted(read.schema.names) != sorted(schema.names):
        differing = sorted(set(read.schema.names) ^ set(schema.names))
        raise ValueError(f"missing, unknown or repeated columns: {differing}")
    for column in schema:
        values = read[column.name]
        if values.type != column.type:
            raise ValueError(f"column {column.name!r} holds {values.type}, wanted {column.type}")
        if values.null_count and not column.nullable:
            raise ValueError(f"column {column.name!r} holds {values.null_count} nulls")
    read.validate(full=True)  # finds text that a flipped bit made invalid UTF-8
    return read.select(schema.names).cast(schema)
