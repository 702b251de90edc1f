"""Resources of a step's unit, and the number of units that a cluster runs at once. Does not import Ray."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Nodes", "Resources", "Share", "Slots", "fit"]

_BESIDE_GPU = {"finetune": 1.0, "classify": 0.5}
"""CPUs that a unit on a GPU takes where nothing else is asked for. The other steps are done by actors of Ray Data, and
leave CPUs to Data's own tasks: without a GPU they ask for half of theirs."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one unit of a step takes of the node that it runs on."""

    gpus: float = 1.0
    """Of a GPU, on a cluster that has any or can start some; 0: done on CPUs there too."""
    cpus: float = 0.0
    """CPUs, and so torch's threads; 0: what the step needs beside a GPU, or without one an even part of all."""
    resource: str = ""
    """What its node has to have: `accelerator_type:A100`, or a resource that cluster.yaml names; empty: any node."""
    most: int = 0
    """Units at once; 0: as many as fit, counting nodes that an autoscaler can start."""

    def __post_init__(self) -> None:
        for name, value in (("gpus", self.gpus), ("cpus", self.cpus), ("most", self.most)):
            if not 0 <= value < math.inf:  # nor is NaN
                raise ValueError(f"{name} of a step must be finite and not negative, got {value}")
        if self.gpus > 1:
            raise ValueError(f"a unit runs on one GPU or on part of one, so gpus must lie in [0, 1], got {self.gpus}")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Of a cluster, what each step's units take: a big GPU for captions, any for images, parts for classifiers."""

    caption: Share = Share()
    finetune: Share = Share()
    generate: Share = Share()
    embed: Share = Share(gpus=0.5)
    recognise: Share = Share()
    classify: Share = Share(gpus=0.25)


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Nodes that are alike."""

    has: Mapping[str, float]
    """Resource -> how much of it one of them has; `CPU`, `GPU` and others, as Ray names them."""
    now: int
    """How many there are."""
    more: int = 0
    """How many an autoscaler can start beside these."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What one unit of a step is given, and how many run at once."""

    count: int
    """At most, on all nodes that can be had."""
    now: int
    """On the nodes that there are; at least 1, so that an autoscaler is asked for a first node."""
    gpus: float
    """Of one unit; 0 where it is done on CPUs."""
    cpus: float
    """That one unit reserves."""
    threads: int
    """torch's, of one unit."""
    cwd: str
    """The driver's working directory, to which the user's relative paths refer."""
    resource: str = ""
    """That its node has to have."""

    @property
    def device(self) -> str:
        """Where a unit runs, as torch names it."""
        return "cuda" if self.gpus else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray reserves for a unit."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **self.custom}

    @property
    def custom(self) -> dict[str, float]:
        """Of it, what is neither CPU nor GPU: so little that a node has enough for all."""
        return {self.resource: 0.001} if self.resource else {}


def fit(step: str, units: int, share: Share, nodes: Sequence[Nodes]) -> Slots:
    """Slots for as many units at once as the nodes have resources for, at most `units`.

    Raises:
        ValueError: if no node has the resources for one unit, which would wait for ever.
    """
    fitting = [group for group in nodes if not share.resource or group.has.get(share.resource)]
    gpus = share.gpus if any(group.has.get("GPU") for group in fitting) else 0.0
    cpus = share.cpus or (_BESIDE_GPU.get(step, 0.0) if gpus else 1.0)
    capacities = [_units(group.has, gpus=gpus, cpus=cpus) for group in fitting]
    total = sum(each * (group.now + group.more) for each, group in zip(capacities, fitting, strict=True))
    if not total:
        raise ValueError(_too_much(step, share, gpus, cpus, nodes))
    count = max(1, min(units, total, share.most or total))
    threads = max(1, int(cpus))
    if not gpus and not share.cpus:  # fewer units than CPUs
        threads = max(1, min(int(max(group.has.get("CPU", 0.0) for group in fitting)), total // count))
        cpus = float(threads) if step in _BESIDE_GPU else 0.5
    now = sum(each * group.now for each, group in zip(capacities, fitting, strict=True))
    return Slots(
        count=count,
        now=max(1, min(count, now)),
        gpus=gpus,
        cpus=cpus,
        threads=threads,
        cwd=os.getcwd(),
        resource=share.resource,
    )


def _units(has: Mapping[str, float], *, gpus: float, cpus: float) -> int:
    """Number of units that one node runs at once."""
    wanted = {"GPU": gpus, "CPU": cpus}
    return min(int(has.get(name, 0.0) / each + 1e-9) for name, each in wanted.items() if each)


def _too_much(step: str, share: Share, gpus: float, cpus: float, nodes: Sequence[Nodes]) -> str:
    what = [f"{gpus:g} GPUs"] * bool(gpus) + [f"{cpus:g} CPUs"] * bool(cpus) + [share.resource] * bool(share.resource)
    there = "; ".join(sorted({_described(group.has) for group in nodes if group.now or group.more})) or "none"
    return (
        f"a unit of step {step} needs {' and '.join(what)} on one node, and this cluster neither has such a node nor"
        f" can start one (its nodes: {there}): ask for less by --resources.{step}.gpus, .cpus or .resource, or add one"
    )


def _described(has: Mapping[str, float]) -> str:
    named = [name for name in has if not name.startswith(("node:", "memory", "object_store"))]
    return ", ".join(f"{has[name]:g} {name}" for name in sorted(named)) or "no CPU"
