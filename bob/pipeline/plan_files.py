"""Plans: tables of the units that each step of a command needs, from which `bob status` tells what is left to do.

A plan is a file per step of a set of runs: `plans/<key of the runs>-<step>.parquet`.
"""

from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa

from bob import store
from bob.core.settings import Run
from bob.core.step_table import PLANNED
from bob.core.types import Unit
from bob.store import schema

__all__ = ["read", "write"]


def write(step: str, units: Collection[Unit], *, runs: Sequence[Run], artefacts: store.Store, upto: str = "") -> None:
    """Writes the plan of a step, done units included; leaves an equal plan as it is.

    Args:
        step: one of `PLANNED`.
        units: all units of the step; a step without units has no plan unless the command ends with it.
        runs: the runs of the command, which name the plan.
        artefacts: the store of the plan.
        upto: the last step of the command if it is not `step_table.LAST`.

    Raises:
        ValueError: if an existing plan is damaged.
    """
    if not units and step != upto:
        return
    columns = {name: [getattr(unit, name) for unit in units] for name in ("target", "label", "size")}
    constant = {"step": [step] * len(units), "unit": [PLANNED[step].counts] * len(units)}
    table = pa.table({**columns, **constant}, schema=schema.PLAN)
    path = f"plans/{store.key(runs)}-{step}.parquet"
    if artefacts.exists(path):
        existing = artefacts.read_checked(path, schema.PLAN, least=min(1, len(units)))
        if existing.equals(table) and artefacts.manifest(path).get("upto", "") == upto:
            return
    # The same runs have other units once their pictures or weights have changed.
    artefacts.write_table(path, table, store.provenance(runs) | ({"upto": upto} if upto else {}))


def read(artefacts: store.Store, paths: Iterable[str]) -> pa.Table:
    """Returns the units of the plans at `paths`, each once: rows of `schema.PLAN`.

    Raises:
        ValueError: if a plan is damaged.
    """
    tables = [artefacts.read_checked(path, schema.PLAN) for path in sorted(paths)]
    rows = pa.concat_tables([schema.PLAN.empty_table(), *tables])
    first_row: dict[str, int] = {}
    for row, target in enumerate(rows["target"].to_pylist()):
        first_row.setdefault(target, row)
    return rows.take(pa.array(first_row.values(), pa.int64()))
