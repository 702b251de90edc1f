"""Points of one sweep trained in lockstep, as many as memory holds: what prepares a batch is done once for all."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bob.core import malloc, threads
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Unit
from bob.steps.classify import ClassifyWorker, SweepWork

__all__ = ["groups", "train_group"]

Answer = TypeVar("Answer")


def groups(units: Sequence[Unit], *, size: Callable[[Unit], int]) -> list[list[Unit]]:
    """Trainings in groups of points of one run's sweep, in their order and as equal in size as can be.

    Finals stay by themselves, and so do the points of a sweep with ASHA, which ends each by itself.

    Args:
        units: the trainings; those of a run come one after another.
        size: most points in a group of this unit's run, at least 1.
    """
    made: list[list[Unit]] = []
    for _, alike in itertools.groupby(units, key=lambda unit: unit.group if _joins(unit) else unit.target):
        run = list(alike)
        each = math.ceil(len(run) / math.ceil(len(run) / size(run[0])))
        made += [run[start : start + each] for start in range(0, len(run), each)]
    return made


def _joins(unit: Unit) -> bool:
    return isinstance(unit.work, SweepWork) and unit.work.sweep.search != "asha"


@threads.fixed(1)
def train_group(
    worker: ClassifyWorker,
    units: Sequence[Unit],
    *,
    one: Callable[[Unit], Answer],
    done: Callable[[Unit, Receipt], Answer],
    tell: Callable[[Unit, Mapping[str, Any]], None] = lambda unit, row: None,
) -> list[Answer]:
    """Trains the points of one run's sweep together and commits a table for each, the same as for each by itself.

    Memory that does not hold the group holds half of it, perhaps: each half goes on from the states saved so far. One
    torch thread, as in a training by itself.

    Args:
        worker: of this process.
        units: of one list that `groups` returned.
        one: does a unit by itself, where none is left to train it with.
        done: (unit, receipt) -> the answer of a unit that was trained with others.
        tell: called with a unit that is trained with others, and the row of an epoch, as soon as it is measured. Rows
            come again where training goes on from a saved state.

    Returns:
        An answer for each unit, in order.
    """
    if len(units) == 1:
        return [one(units[0])]
    receipts = _together(worker, units, tell)
    if receipts is not None:
        return [done(unit, receipt) for unit, receipt in zip(units, receipts, strict=True)]
    half = (len(units) + 1) // 2
    print(f"{len(units)} trainings ran out of memory together, so {half} at once from here on", flush=True)
    parts = (units[:half], units[half:])
    return [answer for part in parts for answer in train_group(worker, part, one=one, done=done, tell=tell)]


def _together(
    worker: ClassifyWorker, units: Sequence[Unit], tell: Callable[[Unit, Mapping[str, Any]], None]
) -> list[Receipt] | None:
    """Receipts of a group; None when memory ran out, with nothing committed."""
    with malloc.importing():
        from bob.classifier.trainer import train_together
        from bob.core import batching

    times = Stopwatch(worker.device)
    histories: list[list[dict[str, Any]]] = [[] for _ in units]
    try:
        courses = [worker.course(unit, unit.work.point, times) for unit in units]
        for number, row in train_together(courses):
            histories[number].append(row)
            tell(units[number], row)
    except (MemoryError, RuntimeError, ValueError) as error:
        if not batching.comes_of_memory(error):
            raise
        histories = []
    if not histories:
        courses = []
        batching.release()  # outside the handler, whose exception still references tensors
        return None
    shares = [times.shared(len(units)) for _ in units]
    return [
        worker.commit(unit, history, point=unit.work.point, times=share)
        for unit, history, share in zip(units, histories, shares, strict=True)
    ]
