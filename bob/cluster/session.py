"""Starting or joining Ray, and how many units of a step run at once."""

import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from bob.types import Receipt, Unit

__all__ = ["LOSSES", "Slots", "attempt", "received", "settle", "slots", "start"]

LOSSES = 20
"""How often the processes of one unit may be lost before we ask what is wrong."""

_GPUS = {"caption": 1.0, "finetune": 1.0, "generate": 1.0, "embed": 0.5, "recognise": 1.0, "classify": 0.25}
"""Of a GPU, what one unit of a step takes where Ray sees GPUs."""

_STORE = 256 << 20
"""Bytes of a local object store: only receipts and unit descriptions go through it."""


_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's tables; our own lines say what is done
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # a notice about every actor that may be restarted
}


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What one unit of a step is given, and how many run at once."""

    count: int
    gpus: float
    """Of one unit; 0 on a cluster without GPUs."""
    threads: int
    """torch's, of one unit."""
    cwd: str
    """The driver's working directory, to which the user's relative paths refer."""

    @property
    def device(self) -> str:
        """Where a unit runs, as torch names it."""
        return "cuda" if self.gpus else "cpu"


def start() -> None:
    """Joins the cluster that `RAY_ADDRESS` or the job names, else starts one on this machine."""
    if ray.is_initialized():
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.data", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    else:
        ray.init(
            "local",  # not a cluster that somebody else has running here
            include_dashboard=True,  # Ray Train asks its state API whether its controllers live
            object_store_memory=_STORE,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


def slots(step: str, units: int) -> Slots:
    """As many at once as GPUs allow, or as there are CPUs; never more than there are units."""
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0.0), int(resources.get("CPU", 1))
    if gpus:
        count = max(1, min(units, int(gpus / _GPUS[step])))
        return Slots(count=count, gpus=_GPUS[step], threads=1, cwd=os.getcwd())
    count = max(1, min(units, cpus))
    one_node = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    return Slots(count=count, gpus=0.0, threads=max(1, min(one_node, cpus // count)), cwd=os.getcwd())


def settle(slots: Slots) -> None:
    """Makes a process of Ray's ready for units; to be called again where Ray has moved it, as Train and Tune do."""
    os.environ["OMP_NUM_THREADS"] = str(slots.threads)  # of torch, where it is imported later, if at all
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(slots.threads)
    with contextlib.suppress(FileNotFoundError):  # another machine, where only absolute paths can be meant
        os.chdir(slots.cwd)


def attempt(worker: Any, unit: Unit, **options: Any) -> dict[str, Any]:
    """Does a unit inside a Ray process: a receipt as plain data, or in words what was raised.

    Nothing is raised here: Ray retries what fails, and only what the system lost is to be retried.
    """
    import dataclasses
    import traceback

    try:
        return dataclasses.asdict(worker(unit, **options))
    except ray.exceptions.RayError:  # a process that this one talks to was lost
        raise
    except ValueError as error:
        return {"target": unit.target, "mistake": str(error)}
    except Exception:  # whatever it is: the driver raises it
        return {"target": unit.target, "failure": traceback.format_exc()}


def received(answer: dict[str, Any]) -> Receipt:
    """What `attempt` sent, as a receipt.

    Raises:
        ValueError: if it was the user's mistake.
        RuntimeError: if it was ours; with the worker's traceback.
    """
    if "mistake" in answer:
        raise ValueError(answer["mistake"])
    if "failure" in answer:
        raise RuntimeError(f"{answer['target']} failed in its worker:\n{answer['failure']}")
    return Receipt(**answer)
