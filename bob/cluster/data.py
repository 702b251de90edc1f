"""Captions and images on Ray Data: a pool of actors that each keep a model and commit whole units."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data

from bob.cluster.resources import Slots
from bob.cluster.session import attempt, received, settle
from bob.store import Store
from bob.types import Receipt, Unit

__all__ = ["run"]


def run(step: str, units: Sequence[Unit], artefacts: Store, slots: Slots) -> Iterator[Receipt]:
    """One row a block and one block a unit, so that units spread evenly and are retried alone.

    The actors write; rows carry unit descriptions and receipts, never pictures.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a unit may take longer than Ray's half hour
    context.actor_init_retry_on_errors = True
    rows = [{"unit": json.dumps(dataclasses.asdict(unit))} for unit in units]
    answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_kwargs={"step": step, "root": artefacts.root, "slots": slots},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=slots.now, max_size=slots.count),
        num_cpus=slots.cpus,
        num_gpus=slots.gpus or None,
        resources=slots.custom or None,
    )
    for row in answers.iter_rows():
        yield received(json.loads(row["answer"]))


class _Actor:
    """One process of the pool."""

    def __init__(self, *, step: str, root: str, slots: Slots) -> None:
        from bob.workers import WORKERS

        settle(slots)
        self._worker = WORKERS[step](root, device=slots.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        units = [Unit(**json.loads(text)) for text in batch["unit"]]
        return {"answer": [json.dumps(attempt(self._worker, unit)) for unit in units]}
