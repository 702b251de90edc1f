"""Starting or joining Ray, the slots of a step, and running a unit inside a Ray process."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import Counter
from typing import Any

import ray
import ray.exceptions
import ray.job_config

from bob.cluster import in_job, meters
from bob.cluster._private import node_groups
from bob.cluster.resources import Nodes, Share, Slots, fit
from bob.core import malloc
from bob.core.types import Receipt, Unit

__all__ = ["LOSSES", "attempt", "joins", "received", "settle", "slots", "start"]

LOSSES = 20
"""Number of lost processes of one unit after which the job fails."""

_STORE = 256 << 20
"""Bytes of a local object store: only receipts and unit descriptions go through it."""

_GROUP = "ray.io/node-group"
"""The label by which an autoscaler's nodes name their type."""

_MANY = 1_000_000
"""Nodes of a type that has no upper bound."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's tables; our own lines say what is done
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # a notice about every actor that may be restarted
}


_ONE_HEAP = ("MALLOC_ARENA_MAX", "1")
"""Of a local Ray's processes. Train and Tune do each unit in a thread of its own, and glibc gives each a heap whose
freed memory no other thread takes: 75 MB more at each of the first trainings. It is read as a process begins, so on a
cluster `cluster.yaml` and the image set it."""


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
    stop = signal.getsignal(signal.SIGTERM)
    if joins():
        about = ray.job_config.JobConfig(metadata={"bob": note})
        ray.init(job_config=about, logging_level=logging.ERROR, log_to_driver=False)
    else:
        os.environ.setdefault(*_ONE_HEAP)
        ray.init(
            "local",  # not a cluster that somebody else has running here
            include_dashboard=True,  # Ray Train asks its state API whether its controllers live
            object_store_memory=_STORE,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # Ray has put its own there, whose exit code says nothing


def joins() -> bool:
    """Whether `start` joins a cluster, and does not start one."""
    return bool(os.environ.get("RAY_ADDRESS")) or in_job()


def slots(step: str, units: int, share: Share) -> Slots:
    """Slots that the cluster has for a step.

    Raises:
        ValueError: if it has no node for one unit, and can start none.
    """
    return fit(step, units, share, _nodes())


def _nodes() -> list[Nodes]:
    """Each node that is alive, and what the autoscaler may start beside them, where there is one."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [Nodes(has=node["Resources"], now=1) for node in alive]
    started = Counter((node.get("Labels") or {}).get(_GROUP, "") for node in alive)
    for group in node_groups():
        most = _MANY if group.max_count < 0 else group.max_count
        nodes.append(Nodes(has=dict(group.resources), now=0, more=max(0, most - started[group.name])))
    return nodes


def settle(slots: Slots) -> None:
    """Sets memory, threads and working folder of a Ray process; called before each unit, as Train and Tune move it."""
    malloc.keep_freed()
    os.environ["OMP_NUM_THREADS"] = str(slots.threads)  # of torch, where it is imported later, if at all
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(slots.threads)
    with contextlib.suppress(FileNotFoundError):  # another machine, where only absolute paths can be meant
        os.chdir(slots.cwd)


def attempt(worker: Any, unit: Unit, **options: Any) -> dict[str, Any]:
    """Runs a unit inside a Ray process; returns the receipt as plain data, or the text of what was raised.

    Only Ray's own errors are raised: Ray retries whatever fails, and only lost processes are to be retried.
    """
    import dataclasses
    import traceback

    try:
        receipt = worker(unit, **options)
        meters.count(unit, receipt)
        return dataclasses.asdict(receipt)
    except ray.exceptions.RayError:  # a process that this one talks to was lost
        raise
    except ValueError as error:
        return {"target": unit.target, "mistake": str(error)}
    except Exception:  # whatever it is: the driver raises it
        return {"target": unit.target, "failure": traceback.format_exc()}


def received(answer: dict[str, Any]) -> Receipt:
    """Receipt from the answer of `attempt`.

    Raises:
        ValueError: if the worker raised one: a mistake of the user's.
        RuntimeError: if the worker raised anything else; with its traceback.
    """
    if "mistake" in answer:
        raise ValueError(answer["mistake"])
    if "failure" in answer:
        raise RuntimeError(f"{answer['target']} failed in its worker:\n{answer['failure']}")
    return Receipt(**answer)
