"""Resources of a step's unit, and the number of units that a cluster runs at once. Does not import Ray."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["FinetuneShare", "Nodes", "Resources", "Share", "Slots", "fit"]

_BESIDE_GPU = {"finetune": 1.0, "classify": 0.5}
"""Default CPUs of a unit on a GPU. The other steps run in actors of Ray Data and leave CPUs to Data's own tasks:
without a GPU they reserve half a CPU."""

_MOST_WORKERS = 1_000
"""Upper limit of a fine-tune's processes: a greater number is a typing error."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Share of a node that one unit of a step takes."""

    gpus: float | Literal["auto"] = 1.0
    """Part of a GPU per unit, on a cluster that has or can start GPUs; 0: units run on CPUs. `auto`, for step classify
    only: by the memory of the backbone and of the GPUs' kind, evenly over the running GPUs where trainings are few."""
    cpus: float = 0.0
    """CPUs per unit; 0: one, beside a GPU the step's default. More are as many torch threads, which changes results by
    the order of sums; but fine-tunes and classifiers train with one thread anywhere."""
    resource: str = ""
    """Resource that the node must have: `accelerator_type:A100`, or one named in cluster.yaml; empty: any node."""
    most: int = 0
    """Largest number of units at once; 0: as many as fit, counting nodes that an autoscaler can start."""

    def __post_init__(self) -> None:
        gpus = 1.0 if self.gpus == "auto" else self.gpus
        for name, value in (("gpus", gpus), ("cpus", self.cpus), ("most", self.most)):
            if not 0 <= value < math.inf:  # false for NaN too
                raise ValueError(f"{name} of a step must be finite and not negative, got {value}")
        if gpus > 1:
            raise ValueError(f"a unit runs on one GPU or on part of one, so gpus must lie in [0, 1], got {self.gpus}")


@dataclass(frozen=True, kw_only=True)
class FinetuneShare(Share):
    """Share of each of the processes that train one adapter."""

    workers: int = 1
    """Processes, each with a share of its own, that divide every batch of a fine-tune among them; changes no result but
    by the order of sums."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.workers <= _MOST_WORKERS:
            raise ValueError(f"workers of a fine-tune must lie in [1, {_MOST_WORKERS}], got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of each step's units on a cluster: big GPUs for captions, any for images, parts for classifiers."""

    caption: Share = Share()
    finetune: FinetuneShare = FinetuneShare()
    generate: Share = Share()
    embed: Share = Share(gpus=0.5)
    recognise: Share = Share()
    classify: Share = Share(gpus="auto")

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "classify" and getattr(self, field.name).gpus == "auto":
                raise ValueError(f"gpus of step {field.name} must be a number: only classify's can be auto")


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """A group of identical nodes."""

    has: Mapping[str, float]
    """Resource -> amount per node; `CPU`, `GPU` and others, as Ray names them."""
    now: int
    """Number of running nodes."""
    more: int = 0
    """Number of nodes that an autoscaler can add."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Resources of one unit of a step, and the number of units at once."""

    count: int
    """Largest number of units at once, on running and addable nodes."""
    now: int
    """Units at once on running nodes; at least 1, so that an autoscaler is asked for a first node."""
    gpus: float
    """GPUs of one unit; 0 if it runs on CPUs."""
    cpus: float
    """CPUs that one unit reserves."""
    threads: int
    """torch threads of one unit."""
    cwd: str
    """The driver's working directory, the base of the user's relative paths."""
    resource: str = ""
    """Resource that the node must have."""
    workers: int = 1
    """Processes of one unit, each with these resources."""
    kept: bool = False
    """Whether units run in processes that go from step to step, so that they import torch and its libraries once."""

    @property
    def device(self) -> str:
        """torch device of a unit."""
        return "cuda" if self.gpus else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """Resources that Ray reserves for a unit."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.custom}

    @property
    def custom(self) -> dict[str, float]:
        """Resources other than CPU and GPU: an amount so small that a node has enough for all units."""
        return {self.resource: 0.001} if self.resource else {}


def fit(step: str, units: int, share: Share, nodes: Sequence[Nodes]) -> Slots:
    """Slots for as many units at once as the nodes have resources for, at most `units`.

    `auto` counts as a whole GPU: `sharing.trainings` replaces it.

    Raises:
        ValueError: if no node has the resources for one unit, so that it would wait for ever.
    """
    fitting = [group for group in nodes if not share.resource or group.has.get(share.resource)]
    part = 1.0 if share.gpus == "auto" else share.gpus
    gpus = part if any(group.has.get("GPU") for group in fitting) else 0.0
    cpus = share.cpus or (_BESIDE_GPU.get(step, 0.0) if gpus else 1.0)
    capacities = [_units(group.has, gpus=gpus, cpus=cpus) for group in fitting]
    workers = share.workers if isinstance(share, FinetuneShare) else 1
    places = sum(capacity * (group.now + group.more) for capacity, group in zip(capacities, fitting, strict=True))
    total = places // workers
    if not total:
        raise ValueError(_misfit(step, share, gpus, cpus, nodes))
    count = max(1, min(units, total, share.most or total))
    if not gpus and not share.cpus and step not in _BESIDE_GPU:
        cpus = 0.5
    now = sum(capacity * group.now for capacity, group in zip(capacities, fitting, strict=True)) // workers
    return Slots(
        count=count,
        now=max(1, min(count, now)),
        gpus=gpus,
        cpus=cpus,
        threads=max(1, int(share.cpus)),
        cwd=os.getcwd(),
        resource=share.resource,
        workers=workers,
    )


def _units(has: Mapping[str, float], *, gpus: float, cpus: float) -> int:
    """Number of units that one node runs at once."""
    needs = {"GPU": gpus, "CPU": cpus}
    return min(int(has.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items() if amount)


def _misfit(step: str, share: Share, gpus: float, cpus: float, nodes: Sequence[Nodes]) -> str:
    needs = [f"{gpus:g} GPUs"] * bool(gpus) + [f"{cpus:g} CPUs"] * bool(cpus) + [share.resource] * bool(share.resource)
    if isinstance(share, FinetuneShare) and share.workers > 1:
        needs[0] = f"{share.workers} workers, each with {needs[0]}"
    groups = "; ".join(sorted({_described(group.has) for group in nodes if group.now or group.more})) or "none"
    return (
        f"a unit of step {step} needs {' and '.join(needs)} on one node, and this cluster neither has such a node nor"
        f" can start one (its nodes: {groups}): ask for less by --resources.{step}.gpus, .cpus or .resource, or add one"
    )


def _described(has: Mapping[str, float]) -> str:
    names = [name for name in has if not name.startswith(("node:", "memory", "object_store"))]
    return ", ".join(f"{has[name]:g} {name}" for name in sorted(names)) or "no CPU"
