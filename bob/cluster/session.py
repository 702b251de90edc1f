"""Start of Ray or connection to a cluster, the slots of a step, and execution of a unit in a Ray process."""

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.exceptions
import ray.job_config

from bob.cluster import in_job, meters
from bob.cluster._private import node_groups
from bob.cluster.resources import Nodes, Share, Slots, fit
from bob.cluster.sharing import Trainings
from bob.cluster.sharing import trainings as fit_trainings
from bob.core import malloc, threads
from bob.core.types import Receipt, Unit
from bob.steps.sweep_group import train_group
from bob.steps.workers import WORKERS

__all__ = [
    "CROWDED",
    "LOSSES",
    "attempt",
    "attempt_together",
    "is_receipt",
    "joins",
    "received",
    "settle",
    "slots",
    "start",
    "trainings",
    "worker",
]

CROWDED = "crowded"
"""Key of an answer of `attempt` that says that memory ran out beside other processes, and how."""

LOSSES = 20
"""Number of lost processes of one unit after which the job fails."""

_LOST_GPU = 70
"""Exit code of a process that has lost its GPU; Ray counts any but 0 as a lost process."""

_OBJECT_STORE_BYTES = 256 << 20
"""Size of Ray's object store on one machine, in bytes: it carries only receipts and descriptions of units."""

_GROUP = "ray.io/node-group"
"""Label of an autoscaler's node that holds the name of its node group."""

_UNBOUNDED = 1_000_000
"""Number of nodes that stands for a node group without an upper bound."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's tables: bob prints its own progress
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # silences a notice about each restartable actor
}

_PROCESSES = {"MALLOC_ARENA_MAX": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Environment of a local Ray's processes; read as a process starts: on a cluster `cluster.yaml` and the image set it.

Tune runs each training in a new thread, and glibc gives each thread a heap whose freed memory no other thread uses:
75 MB more at each of the first trainings. Threads of OpenMP that spin while they wait take cores from other processes.
"""


def start(note: str = "") -> None:
    """Joins the cluster that `RAY_ADDRESS` or the job names, else starts one on this machine.

    Args:
        note: title for the cluster's list of jobs.
    """
    if ray.is_initialized():
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.data", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    handler = signal.getsignal(signal.SIGTERM)
    if joins():
        config = ray.job_config.JobConfig(metadata={"bob": note})
        ray.init(job_config=config, logging_level=logging.ERROR, log_to_driver=False)
    else:
        for name, value in _PROCESSES.items():
            os.environ.setdefault(name, value)
        ray.init(
            "local",  # not another user's cluster on this machine
            include_dashboard=True,  # Ray Train asks the dashboard's state API whether its controllers live
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own, whose exit code says nothing


def joins() -> bool:
    """Whether `start` joins a cluster, and does not start one."""
    return bool(os.environ.get("RAY_ADDRESS")) or in_job()


def slots(step: str, units: int, share: Share) -> Slots:
    """Returns the cluster's slots for a step.

    On CPUs of this machine alone, units run as tasks of Ray, which go to processes that wait, where actors end theirs.

    Raises:
        ValueError: if the cluster has no node for one unit, and can start none.
    """
    fitting = fit(step, units, share, _nodes())
    kept = not joins() and not fitting.gpus and fitting.workers == 1
    return dataclasses.replace(fitting, kept=kept, cpus=max(1.0, fitting.cpus) if kept else fitting.cpus)


def trainings(units: Sequence[Unit], share: Share) -> Trainings:
    """Returns the cluster's slots for trainings of the classifier.

    Raises:
        ValueError: if the cluster has no node for one training, and can start none.
    """
    return fit_trainings(units, share, _nodes())


def _nodes() -> list[Nodes]:
    """Returns each running node, and the nodes that an autoscaler, if there is one, can add."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [Nodes(has=node["Resources"], now=1) for node in alive]
    started = Counter((node.get("Labels") or {}).get(_GROUP, "") for node in alive)
    for group in node_groups():
        most = _UNBOUNDED if group.max_count < 0 else group.max_count
        nodes.append(Nodes(has=dict(group.resources), now=0, more=max(0, most - started[group.name])))
    return nodes


def settle(slots: Slots) -> None:
    """Sets malloc, torch threads and working folder of a Ray process.

    Train and Tune change a process's working folder, so their workers call this before each unit; an actor of Ray Data
    calls it once.
    """
    malloc.keep_freed()
    threads.use(slots.threads)
    with contextlib.suppress(FileNotFoundError):  # another machine, on which relative paths mean nothing
        os.chdir(slots.cwd)


@functools.lru_cache(maxsize=1)
def worker(step: str, root: str, device: str) -> Any:
    """Returns this process's worker of a step, with the models it has loaded, which those of another step replace."""
    return WORKERS[step](root, device=device)


def attempt(worker: Any, unit: Unit, **options: Any) -> dict[str, Any]:
    """Runs a unit in a Ray process; returns the receipt as a dictionary, or the text of the worker's exception.

    Raises only Ray's own errors: Ray retries whatever raises, and only lost processes are worth a retry. A process that
    has lost its GPU ends, so that Ray starts the unit in another.
    """
    try:
        receipt = worker(unit, **options)
        meters.count(unit, receipt)
        return dataclasses.asdict(receipt)
    except ray.exceptions.RayError:  # another process was lost
        raise
    except Exception as error:  # the driver raises it
        return {"target": unit.target} | _explained(error)


def attempt_together(
    worker: Any, units: Sequence[Unit], *, report: Callable[[Unit, Any], None] | None, alone: bool
) -> list[dict[str, Any]]:
    """`attempt` for a trial of the classifier: points of one run's sweep that are trained together, or one training.

    Args:
        worker: the classifier's.
        units: the trainings.
        report: called with a unit and the row of an epoch; see `train_group`.
        alone: whether no other process trains on the device.

    Returns:
        An answer for each unit, in order.
    """

    def one(unit: Unit) -> dict[str, Any]:
        return attempt(worker, unit, report=report and functools.partial(report, unit), alone=alone)

    def done(unit: Unit, receipt: Receipt) -> dict[str, Any]:
        meters.count(unit, receipt)
        return dataclasses.asdict(receipt)

    try:
        return train_group(worker, units, one=one, done=done, **({"tell": report} if report else {}))
    except ray.exceptions.RayError:  # another process was lost
        raise
    except Exception as error:  # the driver raises it
        return [{"target": unit.target} | _explained(error) for unit in units]


def _explained(error: Exception) -> dict[str, str]:
    """Answer to a worker's exception: its kind, and its text. Ends the process if it has lost its GPU."""
    import traceback

    from bob.core import batching  # imports torch, which not all workers need

    if isinstance(error, batching.CrowdedOut):
        return {CROWDED: str(error)}
    if isinstance(error, ValueError):
        return {"mistake": str(error)}
    if batching.is_lost_device(error):
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(_LOST_GPU)  # no clean-up: CUDA does not answer any more
    return {"failure": "".join(traceback.format_exception(error))}


def is_receipt(answer: dict[str, Any]) -> bool:
    """Whether an answer of `attempt` is a receipt, and not the text of an exception."""
    return not {"mistake", "failure", CROWDED} & answer.keys()


def received(answer: dict[str, Any]) -> Receipt:
    """Returns the receipt in an answer of `attempt`.

    Raises:
        ValueError: if the worker raised one, for a mistake of the user's.
        RuntimeError: if the worker raised another exception; with its traceback.
    """
    if "mistake" in answer:
        raise ValueError(answer["mistake"])
    if "failure" in answer:
        raise RuntimeError(f"{answer['target']} failed in its worker:\n{answer['failure']}")
    return Receipt(**answer)
