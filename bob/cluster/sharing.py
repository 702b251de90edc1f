"""Shares of a GPU that trainings of the classifier take, by the memory model. Does not import Ray."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bob.cluster.resources import Nodes, Share, Slots, fit
from bob.core import memory
from bob.core.types import Unit

__all__ = ["MOST", "Trainings", "cards", "kind", "trainings"]

MOST = 4
"""Most trainings on one GPU. They take turns on it, so that more hide no more of the host's work. Assumed, not
measured."""

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
class Trainings:
    """Resources of the trainings of one call."""

    shared: Mapping[str, Slots]
    """Kind of training -> slots beside others."""
    alone: Slots
    """Slots of a training that ran out of memory beside others: a whole GPU; without GPUs all CPUs of a node."""
    notice: str = ""
    """A line for the user; empty if there is nothing to say."""

    @property
    def count(self) -> int:
        """Most trainings at once; fewer run where those with large shares are among them."""
        return max(slots.count for slots in self.shared.values())


def trainings(units: Sequence[Unit], share: Share, nodes: Sequence[Nodes]) -> Trainings:
    """Resources of trainings: the share that the user asks for, or with `gpus="auto"` one for each kind of training.

    A GPU takes as many trainings of a kind as the memory model says, `MOST` at most, and no more than are needed
    where the running GPUs share all of them evenly: few trainings spread.

    Raises:
        ValueError: if no node has the resources for one training.
    """
    fitting = [group for group in nodes if not share.resource or group.has.get(share.resource)]
    groups = [group for group in fitting if group.has.get("GPU")]
    running = sum(int(group.has["GPU"]) * group.now for group in groups)
    even = math.ceil(len(units) / running) if running else MOST
    shared: dict[str, Slots] = {}
    notices: list[str] = []
    for unit in units:
        if kind(unit) in shared:
            continue
        given = share
        if share.gpus == "auto":
            most, notice = _most(unit, groups)
            given = dataclasses.replace(share, gpus=_part(max(1, min(most, even, MOST))))
            notices += [notice] * bool(notice and even > 1)
        shared[kind(unit)] = fit("classify", len(units), given, nodes)
    whole = dataclasses.replace(share, gpus=1.0 if share.gpus else 0.0)
    alone = fit("classify", len(units) if groups and share.gpus else 1, whole, nodes)
    if not alone.gpus:  # nothing else on its node
        alone = dataclasses.replace(alone, cpus=max(group.has.get("CPU", 0.0) for group in fitting))
    return Trainings(shared=shared, alone=alone, notice="; ".join(dict.fromkeys(notices)))


def kind(unit: Unit) -> str:
    """What a training's memory depends on, in words."""
    work = unit.work
    return f"{work.coordinates.backbone} {work.classes} classes {work.sweep.batch} images {work.sweep.precision}"


def cards(groups: Iterable[Nodes]) -> set[str]:
    """Cards of groups of nodes with GPUs, as the memory model names them; empty for an unknown one."""
    return {_card(group) for group in groups}


def _card(group: Nodes) -> str:
    found = [_CARDS[name] for name in group.has if name in _CARDS]
    return found[-1] if found else ""


def _most(unit: Unit, groups: Sequence[Nodes]) -> tuple[int, str]:
    """Number of trainings like this one on any of the cards, and a notice where the model does not know it: then 1."""
    work = unit.work
    precision = "bfloat16" if work.sweep.precision == "auto" else work.sweep.precision
    backbone = work.coordinates.backbone
    footprint, found = memory.classify(backbone, classes=work.classes, precision=precision), cards(groups)
    if not groups:
        return 1, ""
    if footprint is None or "" in found:
        what = f"the memory of a training of {backbone}" if footprint is None else "the memory of a GPU"
        return 1, (
            f"{what} is not known, so each training takes a whole GPU: --resources.classify.gpus 0.25 makes four share"
        )
    sizes = [memory.CARDS[name].bytes for name in found]
    return min(memory.side_by_side(footprint, free=size, images=work.sweep.batch) for size in sizes), ""


def _part(many: int) -> float:
    """Part of a GPU, rounded down to Ray's unit of 0.0001, so that so many fit."""
    return math.floor(10_000 / many) / 10_000
