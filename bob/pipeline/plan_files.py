"""What a command wants made, kept beside what it made, so that a look from outside can tell what is to do.

A plan is a file for each step of a set of runs: `plans/<key of the runs>-<step>.parquet`.
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
    """Notes the units that a step of these runs wants, done or not; writes nothing where that is noted already.

    Args:
        step: one of `PLANNED`.
        units: all that the step wants; a step that wants nothing has no plan, unless the command ends with it.
        runs: what the command was asked for; names the plan.
        artefacts: where it is kept.
        upto: the step that the command ends with, if that is not `step_table.LAST`.

    Raises:
        ValueError: if the plan that is there is damaged.
    """
    if not units and step != upto:
        return
    size = [unit.size for unit in units]
    columns = {name: [getattr(unit, name) for unit in units] for name in ("target", "label")}
    alike = {"step": [step] * len(size), "unit": [PLANNED[step].counts] * len(size)}
    table = pa.table({**columns, **alike, "size": size}, schema=schema.PLAN)
    path = f"plans/{store.key(runs)}-{step}.parquet"
    if artefacts.exists(path):
        there = artefacts.read_checked(path, schema.PLAN, least=min(1, len(size)))
        if there.equals(table) and artefacts.manifest(path).get("upto", "") == upto:
            return
    # The same runs want other units once their pictures or weights have changed.
    artefacts.write_table(path, table, store.provenance(runs) | ({"upto": upto} if upto else {}))


def read(artefacts: store.Store, paths: Iterable[str]) -> pa.Table:
    """All units that the plans at `paths` want, each once: rows of schema.PLAN.

    Raises:
        ValueError: if a plan is damaged.
    """
    tables = [artefacts.read_checked(path, schema.PLAN) for path in sorted(paths)]
    whole = pa.concat_tables([schema.PLAN.empty_table(), *tables])
    first: dict[str, int] = {}
    for row, target in enumerate(whole["target"].to_pylist()):
        first.setdefault(target, row)
    return whole.take(pa.array(first.values(), pa.int64()))
