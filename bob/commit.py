"""How a worker commits a unit: what could not be done first, then what could, for its presence says that it is done."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bob import schema, store
from bob.types import Receipt, Unit

__all__ = ["commit"]


def commit(
    unit: Unit,
    rows: Sequence[Mapping[str, Any]],
    columns: pa.Schema,
    rejected: Sequence[Mapping[str, Any]],
    artefacts: store.Store,
    *,
    start: float,
    note: str = "",
) -> Receipt:
    """Writes a unit's table, and beside it that of the rows that it could not do.

    Args:
        unit: what was done.
        rows: of its table.
        columns: that table's schema.
        rejected: rows of schema.REJECTED.
        artefacts: where both are kept.
        start: `time.monotonic()` when it was begun.
        note: a few words for the line of progress.
    """
    seconds = time.monotonic() - start
    manifest = store.provenance(unit.work, seconds=seconds)
    quarantine = store.quarantine(unit.target)
    artefacts.delete(quarantine)  # of an earlier attempt
    if rejected:
        artefacts.write_table(quarantine, schema.table(rejected, schema.REJECTED), manifest)
    artefacts.write_table(unit.target, schema.table(rows, columns), manifest)
    return Receipt(
        target=unit.target, label=unit.label, size=unit.size, rejected=len(rejected), seconds=seconds, note=note
    )
