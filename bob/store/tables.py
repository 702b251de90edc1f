"""Rows as tables of one of `bob.store.schema`, and back: what is missing, unknown or twice there is refused."""

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
"""First column of a table -> the columns that no two of its rows agree in."""


def rejection(row_id: str, step: str, error: Exception) -> dict[str, str]:
    """A row of `REJECTED`."""
    return {"row_id": row_id, "step": step, "error": type(error).__name__, "message": str(error)}


def from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly `schema`.

    Raises:
        ValueError: if a row lacks a column, has one too many, or holds a null or a wrong type.
    """
    rows, wanted = list(rows), set(schema.names)
    for row in rows:
        if set(row) != wanted:
            odd = sorted(set(row) ^ wanted)
            raise ValueError(f"a row must have the columns {schema.names}; missing or unknown: {odd}")
    try:
        made = pa.Table.from_pylist(rows, schema=schema)
        made.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"a row does not fit its table: {error}") from error
    for column in schema:
        if not column.nullable and made[column.name].null_count:
            raise ValueError(f"column {column.name!r} must not hold nulls, found {made[column.name].null_count}")
    return made


def check(read: pa.Table, schema: pa.Schema, *, least: int = 0) -> pa.Table:
    """A table that was read back, as one of exactly `schema`, if it can have been written by `from_rows`.

    Args:
        read: as it came from a file.
        schema: one of those above.
        least: the fewest rows that it can have.

    Raises:
        ValueError: if it does not fit, or rows are missing or twice there; says which.
    """
    fitted = fit(read, schema)
    if len(fitted) < least:
        raise ValueError(f"{len(fitted)} rows, wanted {least}")
    identity = _IDENTITY.get(schema.names[0], [])
    if identity and len(fitted.group_by(identity).aggregate([])) < len(fitted):
        raise ValueError(f"two rows of the same {', '.join(identity)}")
    return fitted


def fit(read: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table that was read back, as one of exactly `schema`, whatever its rows say.

    Raises:
        ValueError: if columns are missing, unknown, of another type or hold nulls; says which.
    """
    if sorted(read.schema.names) != sorted(schema.names):
        odd = sorted(set(read.schema.names) ^ set(schema.names))
        raise ValueError(f"missing, unknown or repeated columns: {odd}")
    for column in schema:
        held = read[column.name]
        if held.type != column.type:
            raise ValueError(f"column {column.name!r} holds {held.type}, wanted {column.type}")
        if held.null_count and not column.nullable:
            raise ValueError(f"column {column.name!r} holds {held.null_count} nulls")
    read.validate(full=True)  # of a flipped bit, a text that is none
    return read.select(schema.names).cast(schema)
