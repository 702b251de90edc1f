"""Executor on Ray: Data runs captions, images and features, Train fine-tunes, Tune sweeps and final trainings.

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

_DEVICES_PER_PART = 4
"""Devices that one part of an experiment keeps busy. On fewer, parts side by side lose more time by loading the models
again than they save on devices that idle at the end of a step."""
_ANY_NUMBER = 1_000_000  # units: more than a cluster has slots for, so that the cluster sets the bound
_CORES = 16  # CPU cores that count as one device where there is no GPU


def in_job() -> bool:
    """Whether this process is the driver of a job that was submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def at_once(requested: int, resources: Resources, note: str) -> int:
    """Number of an experiment's parts that `pipeline.execute` runs side by side. Joins Ray if it can be over 1.

    Args:
        requested: number that the user gave; 0: as many as a joined cluster has devices for, else 1.
        resources: resources of a unit of each step.
        note: title for the cluster's list of jobs.

    Raises:
        ValueError: if the cluster has no node for an image, and can start none.
    """
    from bob.cluster import session

    if requested == 1 or not (requested or session.joins()):
        return 1
    session.start(note)
    if requested:
        return requested
    slots = session.slots("generate", _ANY_NUMBER, resources.generate)
    return max(1, int(slots.count / (1 if slots.gpus else _CORES) / _DEVICES_PER_PART))


def execute(
    step: str,
    units: Sequence[Unit],
    artefacts: Store,
    *,
    resources: Resources | None = None,
    note: str = "",
    log: str = "none",
) -> Iterator[Receipt]:
    """Runs a step's units on the cluster of `RAY_ADDRESS`, else on a local Ray; an executor of the pipeline.

    Args:
        step: step of the units.
        units: units to run.
        artefacts: store that the workers commit to.
        resources: resources of a unit of each step.
        note: title for the cluster's list of jobs.
        log: tracker of the training curves: `tensorboard`, `mlflow`, `wandb`, or `none`.

    Yields:
        A receipt for each unit, in the order of completion.

    Raises:
        ValueError: if a worker raises one, for a mistake of the user's; or if a unit fits on no node.
        RuntimeError: if Ray gives up on a unit.
    """
    from bob.cluster import session
    from bob.cluster.curves import Curves

    curves = Curves(log, artefacts) if log != "none" and step in ("finetune", "classify") else None
    with malloc.importing():
        stage = _stage(step)
    session.start(note)
    share = getattr(resources or Resources(), step)
    # Trainings of several backbones differ in memory.
    slots = session.trainings(units, share) if step == "classify" else session.slots(step, len(units), share)
    with contextlib.closing(curves) if curves else contextlib.nullcontext():
        yield from stage(step, units, artefacts, slots, **({"curves": curves} if curves else {}))


def _stage(step: str) -> Callable[..., Iterator[Receipt]]:
    """Returns a step's `run` without importing the other libraries of Ray: Train alone takes two seconds, for torch."""
    if step == "finetune":
        from bob.cluster import train

        return train.run
    if step == "classify":
        from bob.cluster import tune

        return tune.run
    from bob.cluster import data

    return data.run
