"""The kinds of work of an experiment: for each step and model the units that differ in what a device computes."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bob import store
from bob.commands import needs, rates
from bob.commands.estimate import dataset_or_stand_in
from bob.core.settings import Run
from bob.core.types import Request, Unit
from bob.datasets import Dataset
from bob.pipeline.splits import Splits, begin
from bob.pipeline.walk import walk
from bob.steps.cell import Cell

__all__ = ["Kind", "kinds"]

_SAMPLED = 64  # requests of a run, whose mean cost stands for all, as in `bob plan`


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Units of one step and model for which a device computes alike, with the largest of them."""

    step: str
    """One of `step_table.STEPS`."""
    model: str
    name: str
    """What distinguishes it from other kinds of the same step and model; empty for the only one."""
    unit: Unit
    cell: Cell
    """The run of the unit."""
    dataset: Dataset | None
    """The run's data set; None where it is not on this machine."""
    work: float
    """Work of the unit, in the effort of `step_table.STEPS`."""
    planned: float
    """Work of all its units, in the effort of `step_table.STEPS`."""


def kinds(runs: Sequence[Run], artefacts: store.Store, *, upto: str) -> list[Kind]:
    """Returns the kinds of work of runs, in the order of the steps; units that runs share count once.

    Args:
        runs: runs of an experiment.
        artefacts: the store of captions that may exist; nothing is written.
        upto: the last step, one of `walk.UPTO`.

    Raises:
        ValueError: for settings that `bob run` refuses.
    """
    stand_ins: dict[str, None] = {}
    splits, seen = Splits(functools.partial(dataset_or_stand_in, stand_ins)), set[str]()
    found: dict[tuple[str, str, str], list[tuple[Unit, Cell, Dataset | None, float]]] = {}
    for run in dict.fromkeys(runs):
        drawn = splits(run)
        cell = begin(run, drawn)
        missing = run.dataset.partition(":")[0] in stand_ins
        cell.provisional = missing
        for step, units in walk([cell], artefacts, upto=upto, writes=False, checks=False):
            evaluations, requests = 0.0, list[Request]()
            if step == "generate" and units:
                requests = list(itertools.islice(_requests(cell), _SAMPLED))
                evaluations = rates.evaluations(map(vars, requests))
            for unit in units:
                if unit.target not in seen:
                    seen.add(unit.target)
                    model, work = rates.amount(unit.step, unit.work, unit.size, evaluations=evaluations)
                    key = unit.step, model, _name(unit, requests)
                    found.setdefault(key, []).append((unit, cell, None if missing else drawn.dataset, work))
    steps = ("caption", "finetune", "generate", "classify")
    return [
        _kind(step, model, name, units)
        for wanted in steps
        for (step, model, name), units in found.items()
        if step == wanted
    ]


def _kind(step: str, model: str, name: str, units: Sequence[tuple[Unit, Cell, Dataset | None, float]]) -> Kind:
    unit, cell, dataset, work = max(units, key=lambda each: each[3])
    planned = sum(each[3] for each in units)
    return Kind(step=step, model=model, name=name, unit=unit, cell=cell, dataset=dataset, work=work, planned=planned)


def _requests(cell: Cell) -> Any:
    return iter(cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed))


def _name(unit: Unit, requests: Sequence[Request]) -> str:
    if unit.step == "finetune":
        return needs.trained(unit.work.tuning)
    return f"{requests[0].kind}, {requests[0].scheduler}" if requests else ""
