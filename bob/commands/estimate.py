"""`bob plan`: what an experiment costs before it is run. Writes nothing.

The runs become the same work units as in `bob run`, so that shared work is counted once and what a store holds is known
for done. Where a data set is not here, one of its size stands in; where captions are not made yet, made-up ones do,
and what depends on them is not done. The features and answers that some figures measure are not counted.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bob import datasets, store
from bob.commands import rates as throughput
from bob.commands.rates import Rate
from bob.core.settings import Run
from bob.core.step_table import PLANNED
from bob.core.types import Unit
from bob.datasets import _standin
from bob.diffusion import checkpoints
from bob.pipeline.splits import Splits, begin
from bob.pipeline.walk import walk
from bob.steps.cell import Cell

__all__ = ["Cluster", "Line", "Plan", "make"]

_SAMPLED = 64
"""Requests of a method that are looked at to know the others."""
_START = {"caption": 12.0, "finetune": 25.0, "generate": 12.0, "sweep": 12.0, "final": 2.0}
"""Seconds from the beginning of a step until its workers work: processes, imports, weights of a mini model."""
_IMAGE = {False: 450e3, True: 2e3}
"""Is the model a mini -> bytes of a PNG, of 512 px (assumed) or 32 px (measured)."""
_ADAPTER = {False: 17.5e6, True: 0.21e6}
"""The same of an adapter, at rank 16 (benchmarks/2026-11-22-full-size.md) or 4."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What it is to run on."""

    count: int
    device: str
    """One of `rates.DEVICES`."""

    @classmethod
    def parse(cls, text: str) -> "Cluster":
        """From `8xH100`.

        Raises:
            ValueError: if it is not of that form, or the device is unknown.
        """
        known = {name.lower(): name for name in throughput.DEVICES}
        found = re.fullmatch(r"([1-9]\d{0,5})x(\w+)", text)
        if not found or found[2].lower() not in known:
            raise ValueError(
                f"--cluster is a number of devices, as in 8xH100, got {text!r}; known: {', '.join(known.values())}"
            )
        return cls(count=int(found[1]), device=known[found[2].lower()])


@dataclass(frozen=True, kw_only=True)
class Line:
    """One step with one model."""

    step: str
    """As in `step_table.PLANNED`."""
    model: str
    units: int
    done: int
    """Units that are there."""
    size: int
    """Of all units, as `step_table.PLANNED` counts it."""
    todo: float
    """Work that is left, in `step_table.STEPS`."""
    longest: float
    """Of that, the work of the largest unit, which one device does."""
    rate: Rate | None
    """Of one device; None if none is known."""

    @property
    def seconds(self) -> float:
        """Of one device."""
        return self.todo / self.rate.per_second if self.rate else math.nan


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `bob plan` shows."""

    lines: tuple[Line, ...]
    cluster: Cluster
    runs: int
    stand_ins: tuple[str, ...]
    """Data sets that are not on this machine."""
    captioned: bool
    """Whether all captions are there; otherwise what depends on them counts as to do."""

    @property
    def device_seconds(self) -> float:
        """Of all devices together; NaN where a rate is not known."""
        return math.fsum(line.seconds for line in self.lines)

    @property
    def wall(self) -> float:
        """Seconds where each step begins when the one before has ended; data sets that overlap need fewer."""
        steps: dict[str, list[Line]] = {}
        for line in self.lines:
            if line.todo:
                steps.setdefault(line.step, []).append(line)
        return sum(_START[step] + self._busy(some) for step, some in steps.items())

    def _busy(self, alike: Sequence[Line]) -> float:
        """Seconds of a step: all devices share its work, and no unit is shared."""
        longest = [line.longest / line.rate.per_second for line in alike if line.rate]
        return max(math.fsum(line.seconds for line in alike) / self.cluster.count, *longest, 0.0)

    @property
    def bytes(self) -> float:
        """Of what is to be made: images and adapters."""
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
    """What the runs need, what of it is there, and how long the rest takes.

    Args:
        runs: as an experiment gives them.
        artefacts: the store; may not be there yet.
        cluster: what it is to run on.
        rates: (step, model) -> what was measured; goes before the table's.
        classifies: False: the runs end with their images, as those of a figure do.

    Raises:
        ValueError: as `bob run` would, for settings that do not fit.
    """
    wanted: dict[str, tuple[str, Unit, float]] = {}
    stand_ins: dict[str, None] = {}
    splits, captioned = Splits(functools.partial(_dataset, stand_ins)), True
    for run in dict.fromkeys(runs):
        cell = begin(run, splits(run))
        cell.provisional = run.dataset.partition(":")[0] in stand_ins
        for step, some in walk([cell], artefacts, upto="classify" if classifies else "generate", writes=False):
            evaluations = _evaluations(cell) if step == "generate" else 0.0
            wanted |= {unit.target: (step, unit, evaluations) for unit in some}
        captioned = captioned and not cell.provisional
    return Plan(
        lines=tuple(_lines(wanted.values(), artefacts, cluster, rates)),
        cluster=cluster,
        runs=len(runs),
        stand_ins=tuple(stand_ins),
        captioned=captioned,
    )


def _dataset(stand_ins: dict[str, None], name: str, descriptor: str) -> datasets.Dataset:
    """The data set, or one of its size, which is then noted."""
    kind = name.partition(":")[0]
    try:
        return datasets.load(name, descriptor)
    except ValueError:
        if kind not in _standin.SIZES:
            raise
    stand_ins[kind] = None
    return _standin.stand_in(name)


def _evaluations(cell: Cell) -> float:
    """Evaluations of the U-Net for an image, by the first of its requests."""
    requests = cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed)
    return throughput.evaluations(vars(request) for request in itertools.islice(requests, _SAMPLED))


def _lines(
    wanted: Iterable[tuple[str, Unit, float]],
    artefacts: store.Store,
    cluster: Cluster,
    rates: Mapping[tuple[str, str], Rate],
) -> Iterator[Line]:
    wanted = list(wanted)
    there = artefacts.present(unit.target for _, unit, _ in wanted)
    groups: dict[tuple[str, str], list[tuple[Unit, float]]] = {}
    for step, unit, evaluations in wanted:
        model, amount = throughput.amount(unit.work, unit.size, evaluations=evaluations)
        groups.setdefault((step, model), []).append((unit, amount))
    for step in PLANNED:
        for (of, model), some in groups.items():
            if of == step:
                done = [unit.target in there for unit, _ in some]
                left = [amount for (_, amount), is_done in zip(some, done, strict=True) if not is_done]
                kind = PLANNED[step].step
                rate = rates.get((kind, model)) or throughput.RATES.get(cluster.device, {}).get(kind)
                yield Line(
                    step=step,
                    model=model,
                    units=len(some),
                    done=sum(done),
                    size=sum(unit.size for unit, _ in some),
                    todo=math.fsum(left),
                    longest=max(left, default=0.0),
                    rate=rate,
                )
