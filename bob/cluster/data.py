"""Captions, images, features and recognition on Ray Data: a pool of processes that keep their model loaded.

Each process runs the step's worker of `bob.steps`, for images `bob.steps.generate_worker.GenerateWorker`, on whole
units. On the CPUs of one machine it does so in tasks, elsewhere in actors.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.exceptions

from bob.cluster.resources import Slots
from bob.cluster.session import LOSSES, attempt, received, settle, worker
from bob.core.types import Receipt, Unit
from bob.steps.generate_worker import GenerateWorker
from bob.steps.workers import packed, unpacked
from bob.store import Store

__all__ = ["blocks", "run"]

_SHARE = 1_000
"""Divisor of a block's size: a block holds 1 / `_SHARE` of the units that are left, at least one unit. A million units
make 8,000 blocks; up to 1,999 units make one block each."""


def run(step: str, units: Sequence[Unit], artefacts: Store, slots: Slots) -> Iterator[Receipt]:
    """Runs a step's units in a pool of processes and yields their receipts in the order of completion.

    The processes commit the results; Ray carries only descriptions of units and receipts, never images.

    Raises:
        RuntimeError: if the process of one unit was lost too often, or its worker raised another exception.
        ValueError: if a worker raised one, for a mistake of the user's.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a unit may take longer than Ray's limit of half an hour
    context.actor_init_retry_on_errors = True
    context.target_max_block_size = 1  # byte: a receipt arrives with its unit, not with the last unit of the block
    rows = ray.data.from_arrow(list(blocks(units)))
    rows.set_name(step)
    # Ray 2.60 deprecates it as a keyword, and has no other way to bound how often a unit is tried.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    answers = rows.map_batches(
        **(_tasks if slots.kept else _actors)(step, artefacts.root, slots),
        batch_size=1,
        num_cpus=slots.cpus,
        num_gpus=slots.gpus or None,
        resources=slots.custom or None,
    )
    try:
        for row in answers.iter_rows():
            yield received(json.loads(row["answer"]))
    except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
        raise RuntimeError(
            f"step {step}: the process of a unit was lost {LOSSES + 1} times; is a GPU broken, or a node out of memory?"
        ) from error


def _actors(step: str, root: str, slots: Slots) -> dict[str, Any]:
    """Arguments of `map_batches` for actors."""
    return {
        "fn": type(step, (_Actor,), {}),  # the dashboard shows the class as the actor's name
        "fn_constructor_kwargs": {"step": step, "root": root, "slots": slots},
        "compute": ray.data.ActorPoolStrategy(min_size=slots.now, max_size=slots.count, **_calls(step, slots)),
        "max_task_retries": LOSSES,
    }


def _tasks(step: str, root: str, slots: Slots) -> dict[str, Any]:
    """Arguments of `map_batches` for tasks."""
    return {
        "fn": _run_batch,
        "fn_kwargs": {"actor": _Actor, "step": step, "root": root, "slots": slots},
        "compute": ray.data.TaskPoolStrategy(size=slots.count),
        "max_retries": LOSSES,
    }


def _calls(step: str, slots: Slots) -> dict[str, Any]:
    """Options of a pool whose actors read and write one unit while they draw another on their GPU."""
    if step != "generate" or not slots.device.startswith("cuda"):
        return {}
    calls = GenerateWorker.CALLS
    both = {"max_concurrent_calls_per_actor": calls, "max_tasks_in_flight_per_actor": calls}
    return both | {"enable_true_multi_threading": True}


def blocks(units: Sequence[Unit]) -> Iterator[pa.Table]:
    """Yields tables of packed units, one a row. Ray assigns a block, and retries it, as a whole.

    The first blocks of very many units hold several units, the last blocks one each, so that all actors are busy to the
    end.
    """
    start = 0
    while start < len(units):
        size = max(1, (len(units) - start) // _SHARE)
        yield pa.table({"unit": [packed(unit) for unit in units[start : start + size]]})
        start += size


class _Actor:
    """One process of the pool: runs the step's worker on each unit of a batch."""

    def __init__(self, *, step: str, root: str, slots: Slots) -> None:
        settle(slots)
        self._store, self._worker = Store(root), worker(step, root, slots.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        units = [unpacked(text) for text in batch["unit"]]
        return {"answer": [json.dumps(attempt(self._do, unit)) for unit in units]}

    def _do(self, unit: Unit) -> Receipt:
        if self._store.exists(unit.target):  # committed by a lost actor, whose block Ray retries
            return Receipt(target=unit.target, label=unit.label, size=unit.size, note="was there")
        return self._worker(unit)


def _run_batch(batch: dict[str, np.ndarray], *, actor: type[_Actor], **options: Any) -> dict[str, Any]:
    """What an actor does, in a process that goes on to other steps."""
    return actor(**options)(batch)
