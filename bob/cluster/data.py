"""Captions, images and features on Ray Data: a pool of actors that keep their model loaded and commit whole units."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from bob.cluster.resources import Slots
from bob.cluster.session import attempt, received, settle
from bob.core.types import Receipt, Unit
from bob.steps.workers import WORKERS, packed, unpacked
from bob.store import Store

__all__ = ["blocks", "run"]

_SHARE = 1_000
"""A block is this part of the units that are left, so a million make 8,000 blocks, and 1,999 a block each."""


def run(step: str, units: Sequence[Unit], artefacts: Store, slots: Slots) -> Iterator[Receipt]:
    """Deals units to the actors, which write; rows carry unit descriptions and receipts, never pictures."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a unit may take longer than Ray's half hour
    context.actor_init_retry_on_errors = True
    context.target_max_block_size = 1  # byte: each receipt comes when its unit is done, not with the last of its block
    rows = ray.data.from_arrow(list(blocks(units)))
    rows.set_name(step)
    answers = rows.map_batches(
        type(step, (_Actor,), {}),  # the dashboard calls actors as their class
        fn_constructor_kwargs={"step": step, "root": artefacts.root, "slots": slots},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=slots.now, max_size=slots.count),
        num_cpus=slots.cpus,
        num_gpus=slots.gpus or None,
        resources=slots.custom or None,
    )
    for row in answers.iter_rows():
        yield received(json.loads(row["answer"]))


def blocks(units: Sequence[Unit]) -> Iterator[pa.Table]:
    """What Ray deals out and retries as one: a unit a row, several where there are very many.

    Blocks get smaller towards the end, where each is one unit, so that all actors are busy to the end.
    """
    start = 0
    while start < len(units):
        size = max(1, (len(units) - start) // _SHARE)
        yield pa.table({"unit": [packed(unit) for unit in units[start : start + size]]})
        start += size


class _Actor:
    """One process of the pool."""

    def __init__(self, *, step: str, root: str, slots: Slots) -> None:
        settle(slots)
        self._store, self._worker = Store(root), WORKERS[step](root, device=slots.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        units = [unpacked(text) for text in batch["unit"]]
        return {"answer": [json.dumps(attempt(self._do, unit)) for unit in units]}

    def _do(self, unit: Unit) -> Receipt:
        if self._store.exists(unit.target):  # a lost actor committed it, and Ray deals its block again
            return Receipt(target=unit.target, label=unit.label, size=unit.size, note="was there")
        return self._worker(unit)
