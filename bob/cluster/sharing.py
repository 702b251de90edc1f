"""Shares of a GPU that trainings of the classifier take, and how many each process trains, by the memory model.

Does not import Ray.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bob.cluster.resources import Nodes, Share, Slots, fit
from bob.core import memory
from bob.core.memory import Footprint
from bob.core.settings import SweepSettings
from bob.core.types import Unit

__all__ = ["Packing", "Trainings", "cards", "kind", "packing", "trainings"]

_PROCESSES = 2
"""Most processes that train on one GPU: while one launches kernels, the GPU works for the other. Assumed, not
measured."""

_POINTS = 8
"""Most points of a sweep that a process trains in lockstep. What is done once a batch for all of them is then an eighth
for each, and more of them would make trials so long that GPUs idle at a sweep's end. Assumed, not measured."""

_CARDS = {
    "accelerator_type:L4": "L4",
    "accelerator_type:L40S": "L40S",
    "accelerator_type:A10G": "A10G",
    "accelerator_type:A100": "A100-40",  # Ray does not tell the sizes apart
    "accelerator_type:H100": "H100",
    "accelerator_type:H200": "H200",
    "accelerator_type:GeForce-RTX-4090": "RTX4090",
    "accelerator_type:T4": "T4",
    "accelerator_type:V100": "V100",
    # Resources that an administrator declares, in addition to A100.
    "accelerator_type:A100-40G": "A100-40",
    "accelerator_type:A100-80G": "A100-80",
}
"""Resource of a node, as Ray 2.60 names it -> card of the memory model."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Trainings on one device."""

    processes: int = 1
    """Processes side by side."""
    points: int = 1
    """Points of one run's sweep that each of them trains in lockstep."""


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """Resources of the trainings of one call."""

    shared: Mapping[str, Slots]
    """Kind of training -> slots of a process beside others."""
    points: Mapping[str, int]
    """Kind of training -> most points of one run's sweep that a process trains in lockstep."""
    alone: Slots
    """Slots of a training that ran out of memory beside others: a whole GPU; without GPUs all CPUs of a node."""
    notice: str = ""
    """A line for the user; empty if there is nothing to say."""

    @property
    def count(self) -> int:
        """Most processes at once; fewer run where those with large shares are among them."""
        return max(slots.count for slots in self.shared.values())


def trainings(units: Sequence[Unit], share: Share, nodes: Sequence[Nodes]) -> Trainings:
    """Resources of trainings: the share that the user asks for, or with `gpus="auto"` one for each kind of training.

    With `auto` a GPU takes as many trainings as `packing` says, and no more than spread all of them evenly over the
    running GPUs. A share that the user gives is that of one training, and so is a CPU: in lockstep it trains 1 to 5 %
    faster (measured on two cores), and a core more often has nothing left to do at a sweep's end.

    Raises:
        ValueError: if no node has the resources for one training.
    """
    fitting = [group for group in nodes if not share.resource or group.has.get(share.resource)]
    groups = [group for group in fitting if group.has.get("GPU")]
    even = len(units) / max(1, sum(int(group.has["GPU"]) * group.now for group in groups))
    shared, points = dict[str, Slots](), dict[str, int]()
    notices: list[str] = []
    for unit in units:
        if kind(unit) in shared:
            continue
        given, packed = share, Packing()
        if share.gpus == "auto" and groups:
            most, notice = _most(unit, groups)
            packed = _spread(most, even)
            given = dataclasses.replace(share, gpus=1 / packed.processes)
            notices += [notice] * bool(notice and even > 1)
        shared[kind(unit)], points[kind(unit)] = fit("classify", len(units), given, nodes), packed.points
    whole = dataclasses.replace(share, gpus=1.0 if share.gpus else 0.0)
    alone = fit("classify", len(units) if groups and share.gpus else 1, whole, nodes)
    if not alone.gpus:  # nothing else on its node
        alone = dataclasses.replace(alone, cpus=max(group.has.get("CPU", 0.0) for group in fitting))
    return Trainings(shared=shared, points=points, alone=alone, notice="; ".join(dict.fromkeys(notices)))


def kind(unit: Unit) -> str:
    """What a training's resources depend on, in words."""
    work, sweep = unit.work, unit.work.sweep
    return f"{work.coordinates.backbone} {work.classes} classes {sweep.batch} images {sweep.precision} {sweep.search}"


def packing(footprint: Footprint, sweep: SweepSettings, *, free: int) -> Packing:
    """Trainings of one kind that a GPU takes at once: two processes, each with what its half of the memory holds.

    What a process may keep of pictures, validation views and, in a final training, test views is not for models. Where
    a half does not hold a final training besides, there is one process. With ASHA each point trains by itself.

    Args:
        footprint: of one training.
        sweep: settings of the training.
        free: bytes of the GPU.
    """
    for processes in range(_PROCESSES, 0, -1):
        sweeping, final = (
            memory.lockstep(footprint, free=int(free * (1 / processes - kept * memory.PICTURES)), images=sweep.batch)
            for kept in (2, 3)
        )
        if final:
            return Packing(processes=processes, points=1 if sweep.search == "asha" else min(sweeping, _POINTS))
    return Packing()


def _spread(most: Packing, even: float) -> Packing:
    """A packing of at most `even` trainings a GPU."""
    processes = min(most.processes, max(1, math.ceil(even)))
    return Packing(processes=processes, points=max(1, min(most.points, int(even / processes))))


def cards(groups: Iterable[Nodes]) -> set[str]:
    """Cards of groups of nodes with GPUs, as the memory model names them; empty for an unknown one."""
    return {_card(group) for group in groups}


def _card(group: Nodes) -> str:
    found = [_CARDS[name] for name in group.has if name in _CARDS]
    return found[-1] if found else ""


def _most(unit: Unit, groups: Sequence[Nodes]) -> tuple[Packing, str]:
    """Trainings like this one on any of the cards, and a notice where the model does not know it: then one."""
    work = unit.work
    precision = "bfloat16" if work.sweep.precision == "auto" else work.sweep.precision
    backbone = work.coordinates.backbone
    footprint, found = memory.classify(backbone, classes=work.classes, precision=precision), cards(groups)
    if footprint is None or "" in found:
        what = f"the memory of a training of {backbone}" if footprint is None else "the memory of a GPU"
        return Packing(), (
            f"{what} is not known, so each training takes a whole GPU: --resources.classify.gpus 0.25 makes four share"
        )
    smallest = min(memory.CARDS[name].bytes for name in found)
    return packing(footprint, work.sweep, free=smallest), ""
