"""Estimated cost of runs, for `bob plan`. Writes nothing.

The runs become the same work units as in `bob run`, so that shared work is counted once and finished units of a store
count as done. A data set that is missing is replaced by a stand-in of its size. Missing captions are replaced by
invented ones, and units that depend on them count as to do. The features and answers that some figures measure are not
counted.
"""

import functools
import itertools
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bob import datasets, store
from bob.commands import needs
from bob.commands import rates as throughput
from bob.commands.needs import Need
from bob.commands.rates import Rate
from bob.core.settings import Run
from bob.core.step_table import PLANNED
from bob.core.types import Unit
from bob.datasets import _standin
from bob.diffusion import checkpoints
from bob.pipeline.splits import Splits, begin
from bob.pipeline.walk import walk
from bob.steps.cell import Cell

__all__ = ["Cluster", "Line", "Plan", "dataset_or_stand_in", "make"]

_SAMPLED = 64
"""First requests of a method, whose mean cost stands for all its requests."""
_START = {"caption": 12.0, "finetune": 25.0, "generate": 12.0, "sweep": 12.0, "final": 2.0}
"""Step -> start-up time of its workers in seconds: processes, imports, weights of a mini model."""
_IMAGE = {False: 450e3, True: 2e3}
"""Whether the model is a mini model -> bytes of a PNG, at 512 px (assumed) or 32 px (measured)."""
_ADAPTER = {False: 17.5e6, True: 0.21e6}
"""Whether the model is a mini model -> bytes of an adapter, at rank 16 (benchmarks/2026-11-22-full-size.md) or 4."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices of one kind that the runs share."""

    count: int
    device: str
    """One of `rates.DEVICES`."""

    @classmethod
    def parse(cls, text: str) -> "Cluster":
        """Parses a text such as `8xH100`.

        Raises:
            ValueError: if the text has another form, or the device is unknown.
        """
        known = {name.lower(): name for name in throughput.DEVICES}
        parts = re.fullmatch(r"([1-9]\d{0,5})x([\w-]+)", text)
        if not parts or parts[2].lower() not in known:
            raise ValueError(
                f"--cluster is a number of devices, as in 8xH100, got {text!r}; known: {', '.join(known.values())}"
            )
        return cls(count=int(parts[1]), device=known[parts[2].lower()])


@dataclass(frozen=True, kw_only=True)
class Line:
    """Estimate for one step with one model."""

    step: str
    """One of `step_table.PLANNED`."""
    model: str
    units: int
    done: int
    """Finished units."""
    size: int
    """Size of all units, in `step_table.PLANNED[step].counts`."""
    todo: float
    """Work of the unfinished units, in the effort of `step_table.STEPS`."""
    longest: float
    """Work of the largest unfinished unit, which only one device can do."""
    rate: Rate | None
    """Rate of one device; None if unknown."""

    @property
    def seconds(self) -> float:
        """Device-seconds of the unfinished units; NaN if the rate is unknown."""
        return self.todo / self.rate.per_second if self.rate else math.nan


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Content of `bob plan`."""

    lines: tuple[Line, ...]
    cluster: Cluster
    runs: int
    stand_ins: tuple[str, ...]
    """Data sets that are not on this machine."""
    captioned: bool
    """Whether all captions exist; otherwise units that depend on them count as to do."""
    needs: tuple[Need, ...] = ()
    """Memory of the unfinished units on a GPU; empty on CPUs."""

    @property
    def device_seconds(self) -> float:
        """Device-seconds of all steps; NaN if a rate is unknown."""
        return math.fsum(line.seconds for line in self.lines)

    @property
    def wall(self) -> float:
        """Seconds from beginning to end, without overlap of steps; data sets that overlap need less."""
        steps: dict[str, list[Line]] = {}
        for line in self.lines:
            if line.todo:
                steps.setdefault(line.step, []).append(line)
        return sum(_START[step] + self._busy(lines) for step, lines in steps.items())

    def _busy(self, lines: Sequence[Line]) -> float:
        """Returns the seconds of one step: devices share its units, but one unit takes one device."""
        longest = [line.longest / line.rate.per_second for line in lines if line.rate]
        return max(math.fsum(line.seconds for line in lines) / self.cluster.count, *longest, 0.0)

    @property
    def bytes(self) -> float:
        """Bytes of the images and adapters to be made."""
        drawn = [line for line in self.lines if line.step == "generate"]
        tuned = [line for line in self.lines if line.step == "finetune"]
        images = sum(line.size * (1 - line.done / line.units) * _IMAGE[_is_mini(line)] for line in drawn)
        return images + sum((line.units - line.done) * _ADAPTER[_is_mini(line)] for line in tuned)


def _is_mini(line: Line) -> bool:
    return checkpoints.settings(line.model).mini


def make(
    runs: Sequence[Run],
    artefacts: store.Store,
    *,
    cluster: Cluster,
    rates: Mapping[tuple[str, str], Rate],
    classifies: bool = True,
) -> Plan:
    """Returns the units of runs, the finished ones, and the time of the others.

    Args:
        runs: runs of an experiment.
        artefacts: the store; need not exist.
        cluster: devices that do the work.
        rates: (step, model) -> measured rate; takes precedence over `rates.RATES`.
        classifies: False: the runs end with their images, as those of a figure do.

    Raises:
        ValueError: for settings that `bob run` refuses, and if a step does not fit into a device's memory.
    """
    planned: dict[str, tuple[str, Unit, float]] = {}
    stand_ins: dict[str, None] = {}
    classes: dict[str, int] = {}
    splits, captioned = Splits(functools.partial(dataset_or_stand_in, stand_ins)), True
    upto = "classify" if classifies else "generate"
    for run in dict.fromkeys(runs):
        cell = begin(run, splits(run))
        cell.provisional = run.dataset.partition(":")[0] in stand_ins
        for step, units in walk([cell], artefacts, upto=upto, writes=False, checks=False):
            evaluations = _evaluations(cell) if step == "generate" else 0.0
            planned |= {unit.target: (step, unit, evaluations) for unit in units}
        captioned = captioned and not cell.provisional
        classes[run.backbone] = max(len(cell.training.class_names), classes.get(run.backbone, 0))
    finished = artefacts.present(planned)
    left, card = (
        [unit for target, (_, unit, _) in planned.items() if target not in finished],
        needs.card(cluster.device),
    )
    return Plan(
        lines=tuple(_lines(planned.values(), finished, cluster, rates)),
        cluster=cluster,
        runs=len(runs),
        stand_ins=tuple(stand_ins),
        captioned=captioned,
        needs=needs.needs(left, card, classes) if card else (),
    )


def dataset_or_stand_in(stand_ins: dict[str, None], name: str, descriptor: str) -> datasets.Dataset:
    """Returns the data set, or a stand-in of its size, whose kind is added to `stand_ins`."""
    kind = name.partition(":")[0]
    try:
        return datasets.load(name, descriptor)
    except ValueError:
        if kind not in _standin.SIZES:
            raise
    stand_ins[kind] = None
    return _standin.stand_in(name)


def _evaluations(cell: Cell) -> float:
    """Returns the mean U-Net evaluations of an image, over the first requests of the cell's method."""
    requests = cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed)
    return throughput.evaluations(vars(request) for request in itertools.islice(requests, _SAMPLED))


def _lines(
    planned: Iterable[tuple[str, Unit, float]],
    finished: Container[str],
    cluster: Cluster,
    rates: Mapping[tuple[str, str], Rate],
) -> Iterator[Line]:
    groups: dict[tuple[str, str], list[tuple[Unit, float]]] = {}
    for step, unit, evaluations in planned:
        model, amount = throughput.amount(unit.step, unit.work, unit.size, evaluations=evaluations)
        groups.setdefault((step, model), []).append((unit, amount))
    for step in PLANNED:
        for (group_step, model), group in groups.items():
            if group_step == step:
                done = [unit.target in finished for unit, _ in group]
                left = [amount for (_, amount), is_done in zip(group, done, strict=True) if not is_done]
                kind = PLANNED[step].step
                rate = rates.get((kind, model)) or throughput.rate(cluster.device, kind, model)
                yield Line(
                    step=step,
                    model=model,
                    units=len(group),
                    done=sum(done),
                    size=sum(unit.size for unit, _ in group),
                    todo=math.fsum(left),
                    longest=max(left, default=0.0),
                    rate=rate,
                )
