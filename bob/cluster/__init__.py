"""The executor on Ray: Ray Data runs captions and images, Ray Train fine-tunes, Ray Tune sweeps and final trainings.

The only package that imports Ray. Units travel to the workers of `bob.steps.workers`, which commit their results;
only receipts come back.
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
"""Devices that one part of an experiment keeps busy: on fewer, loading the models again costs more time than devices
that idle at the end of a step."""
_MANY = 1_000_000  # units
_CORES = 16  # CPU cores that count as one device where there is no GPU


def in_job() -> bool:
    """Whether this process is the driver of a job that was submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def at_once(asked: int, resources: Resources, note: str) -> int:
    """Number of an experiment's parts that `pipeline.execute` runs side by side. Joins Ray if it can be over 1.

    Args:
        asked: by the user; 0: on a cluster as many as it has devices for, else 1.
        resources: what a unit of each step takes.
        note: title for the cluster's list of jobs.

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
        units: the missing units.
        artefacts: the store that the workers commit to.
        resources: what a unit of each step takes.
        note: title for the cluster's list of jobs.
        log: tracker of the training curves: `tensorboard`, `mlflow`, `wandb`, or `none`.

    Yields:
        A receipt for each unit, in the order of completion.

    Raises:
        ValueError: what a worker raised for a mistake of the user's; or if a unit fits on no node.
        RuntimeError: if Ray gave up on a unit.
    """
    from bob.cluster import session
    from bob.cluster.curves import Curves

    curves = Curves(log, artefacts) if log != "none" and step in ("finetune", "classify") else None
    with malloc.importing():
        stage = _stage(step)
    session.start(note)
    slots = session.slots(step, len(units), getattr(resources or Resources(), step))
    with contextlib.closing(curves) if curves else contextlib.nullcontext():
        yield from stage(step, units, artefacts, slots, **({"curves": curves} if curves else {}))


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
