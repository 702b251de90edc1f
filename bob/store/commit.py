"""Commit of a finished unit: first its rejected rows, last its table, whose presence marks the unit as done."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bob import store
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Unit
from bob.store import schema, tables

__all__ = ["commit"]


def commit(
    unit: Unit,
    rows: Sequence[Mapping[str, Any]],
    columns: pa.Schema,
    rejected: Sequence[Mapping[str, Any]],
    artefacts: store.Store,
    *,
    times: Stopwatch,
    note: str = "",
    noted: Mapping[str, Any] | None = None,
) -> Receipt:
    """Writes a unit's table, and next to it the table of its rejected rows if there are any.

    Args:
        unit: the finished unit.
        rows: rows of the unit's table.
        columns: schema of the unit's table.
        rejected: rows of `schema.REJECTED`.
        artefacts: the store of both tables.
        times: the unit's stopwatch; the manifest has its times before the tables are written, the receipt after.
        note: a few words for the progress line.
        noted: more entries of the manifest.
    """
    times.switch("write")
    manifest = store.provenance(unit.config, times=times) | dict(noted or {})
    quarantine = store.quarantine(unit.target)
    artefacts.delete(quarantine)  # of an earlier attempt
    if rejected:
        artefacts.write_table(quarantine, tables.from_rows(rejected, schema.REJECTED), manifest)
    artefacts.write_table(unit.target, tables.from_rows(rows, columns), manifest)
    return Receipt(
        target=unit.target, label=unit.label, size=unit.size, rejected=len(rejected), times=times.times(), note=note
    )
