"""Ray, and nothing but Ray: Data for captions and images, Train for fine-tunes, Tune for sweeps.

The only package that imports it. Each step's units go to the workers of `bob.steps.workers`, which commit
what they make; receipts alone come back.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from bob.cluster.curves import require
from bob.cluster.resources import Resources
from bob.core import malloc
from bob.core.types import Receipt, Unit
from bob.store import Store

__all__ = ["Resources", "at_once", "execute", "in_job", "require"]

_EACH = 4
"""Devices that one part of an experiment keeps busy by itself: on fewer, loading the models again costs more than the
end of a step, where some idle."""
_MANY = 1_000_000  # units
_CORES = 16  # that count for a device, where there is no GPU


def in_job() -> bool:
    """Whether this process is the driver of a job that was submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def at_once(asked: int, resources: Resources, note: str) -> int:
    """How many parts of an experiment, of `pipeline.execute`, are to be done side by side. Joins Ray if over 1.

    Args:
        asked: by the user; 0: on a cluster as many as it has devices for, else 1.
        resources: what a unit of each step takes.
        note: what this is, for the cluster's list of jobs.

    Raises:
        ValueError: if the cluster has no node for an image, and can start none.
    """
    from bob.cluster import session

    if asked == 1 or not (asked or session.joins()):
        return 1
    session.start(note)
    if asked:
        return asked
    slots = session.slots("generate", _MANY, resources.generate)
    return max(1, int(slots.count / (1 if slots.gpus else _CORES) / _EACH))


def execute(
    step: str,
    units: Sequence[Unit],
    artefacts: Store,
    *,
    resources: Resources | None = None,
    note: str = "",
    log: str = "none",
) -> Iterator[Receipt]:
    """The pipeline's executor on Ray: joins the cluster of `RAY_ADDRESS`, or starts a local one.

    Args:
        step: of the units.
        units: what is to do.
        artefacts: where it is kept.
        resources: what a unit of each step takes.
        note: what this is, for the cluster's list of jobs.
        log: who is shown the curves of trainings: `tensorboard`, `mlflow`, `wandb`, or `none`.

    Yields:
        A receipt for each unit, in the order in which they are done.

    Raises:
        ValueError: what a worker raised for something that the user can mend; or if a unit fits on no node.
        RuntimeError: if Ray gave up on a unit.
    """
    from bob.cluster import curves, session

    drawn = curves.Curves(log, artefacts) if log != "none" and step in ("finetune", "classify") else None
    with malloc.importing():
        stage = _stage(step)
    session.start(note)
    slots = session.slots(step, len(units), getattr(resources or Resources(), step))
    with contextlib.closing(drawn) if drawn else contextlib.nullcontext():
        yield from stage(step, units, artefacts, slots, **({"curves": drawn} if drawn else {}))


def _stage(step: str) -> Callable[..., Iterator[Receipt]]:
    """Imports no other stage's part of Ray: that of Train alone brings torch, two seconds."""
    if step == "finetune":
        from bob.cluster import train

        return train.run
    if step == "classify":
        from bob.cluster import tune

        return tune.run
    from bob.cluster import data

    return data.run
