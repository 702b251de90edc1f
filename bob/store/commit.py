"""How a worker commits a unit: what could not be done first, then what could, for its presence says that it is done."""

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
    """Writes a unit's table, and beside it that of the rows that it could not do.

    Args:
        unit: what was done.
        rows: of its table.
        columns: that table's schema.
        rejected: rows of schema.REJECTED.
        artefacts: where both are kept.
        times: since it was begun. The manifest has them as they are when it is written, the receipt with the writing.
        note: a few words for the line of progress.
        noted: what else the manifest says.
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
