"""Fine-tunes on Ray Train: one trainer per unit, named by the unit's key, so that Train finds its checkpoint.

A trainer has one process, or several that share each batch (`bob.diffusion.parallel`). On the CPUs of one machine Train
runs in its local mode, inside a task of Ray, without the five processes that it starts beside each worker.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from bob.cluster.curves import Curves
from bob.cluster.resources import Slots
from bob.cluster.session import LOSSES, attempt, is_receipt, received, settle, worker
from bob.core import threads
from bob.core.types import Receipt, Unit
from bob.steps.workers import packed, unpacked
from bob.store import Store

__all__ = ["run"]

_STATE = "state.pt"
_LOOK_EVERY = 5.0  # seconds between two readings of the workers' progress


def run(
    step: str, units: Sequence[Unit], artefacts: Store, slots: Slots, *, curves: Curves | None = None
) -> Iterator[Receipt]:
    """Runs fine-tunes, `slots.count` at once, and yields their receipts in the order of completion.

    The workers commit the adapters; Train's own folder is scratch.
    """
    scratch, running = artefacts.scratch("train"), dict[str, Unit]()
    watch = _Watch(artefacts, curves)

    def fit(unit: Unit) -> tuple[Unit, dict[str, Any]]:
        running[unit.target] = unit
        try:
            return unit, (_fit_kept if slots.kept else _fit)(unit, artefacts.root, scratch, slots)
        finally:
            running.pop(unit.target)

    def look() -> None:
        for unit in list(running.values()):
            watch.look(unit)

    for unit, answer in threads.as_completed(fit, units, at_once=slots.count, look=look, every=_LOOK_EVERY):
        receipt = received(answer)
        watch.end(unit)
        yield receipt


class _Watch:
    """Prints the workers' progress in the driver, and writes their curves."""

    def __init__(self, artefacts: Store, curves: Curves | None) -> None:
        self._store, self._curves, self._printed = artefacts, curves, dict[str, str]()

    def look(self, unit: Unit) -> None:
        """Reads the progress of one fine-tune."""
        path = _progress(unit)
        if not self._store.exists(path):
            return
        progress = json.loads(self._store.read(path))
        if progress["words"] != self._printed.get(unit.target, ""):
            print(f"  {unit.label}: {progress['words']}", flush=True)
            self._printed[unit.target] = progress["words"]
        if self._curves:
            for done, loss in progress["losses"]:
                self._curves.add(unit, done, {"train_loss": loss})

    def end(self, unit: Unit) -> None:
        """Reads the last points of a finished fine-tune, and completes its curves."""
        if self._curves:
            self.look(unit)
            self._curves.end(unit)


class _Progress:
    """Progress of a fine-tune, which its worker writes to a small file for the driver."""

    def __init__(self, unit: Unit, artefacts: Store) -> None:
        self._path, self._store, self._words = _progress(unit), artefacts, ""
        self._losses: list[tuple[int, float]] = []

    def tell(self, words: str) -> None:
        """Sets the line of progress."""
        self._words = words
        self._write()

    def report(self, done: int, loss: float) -> None:
        """Adds a point to the curve: the number of steps done, and the mean loss."""
        self._losses.append((done, loss))
        self._write()

    def _write(self) -> None:
        self._store.write_json(self._path, {"words": self._words, "losses": self._losses})


def _progress(unit: Unit) -> str:
    return f"scratch/train/{_name(unit)}.json"


def _failure(unit: Unit) -> str:
    return f"scratch/train/{_name(unit)}.failure.json"


def _name(unit: Unit) -> str:
    return unit.target.split("/")[-2]


def _fit(unit: Unit, root: str, scratch: str, slots: Slots) -> dict[str, Any]:
    """Trains one unit; resumes from its checkpoint if Ray loses the controlling process."""
    Store(root).delete(_failure(unit))  # an earlier command's
    lost: Exception | None = None
    for _ in range(LOSSES):
        try:
            result = _trainer(unit, root, scratch, slots).fit()
        except (ray.exceptions.RayActorError, ray.train.ControllerError) as error:
            lost = error
            continue
        assert isinstance(result.return_value, dict)
        return result.return_value
    raise RuntimeError(f"{unit.label}: its controller was lost {LOSSES} times; is the node out of memory?") from lost


def _fit_kept(unit: Unit, root: str, scratch: str, slots: Slots) -> dict[str, Any]:
    """Trains one unit in a process that other steps use too; resumes from its saved state if Ray loses the process."""
    task = ray.remote(num_cpus=slots.cpus, resources=slots.custom, max_retries=LOSSES)(_fit_locally)
    try:
        return ray.get(task.options(name=type(unit.work).__name__).remote(packed(unit), root, scratch, slots))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise RuntimeError(
            f"{unit.label}: its process was lost {LOSSES + 1} times; is the node out of memory?"
        ) from error


def _fit_locally(text: str, root: str, scratch: str, slots: Slots) -> dict[str, Any]:
    """Runs a trainer in this process: Train's local mode keeps no checkpoints, so the worker saves to the store."""
    result = _trainer(unpacked(text), root, scratch, slots).fit().return_value
    assert isinstance(result, dict)
    return result


def _trainer(unit: Unit, root: str, scratch: str, slots: Slots) -> DataParallelTrainer:
    trainer: type[DataParallelTrainer] = DataParallelTrainer  # one process needs no group of processes
    if slots.workers > 1:
        from ray.train.torch import TorchTrainer as trainer  # late: imports torch
    return trainer(
        _loop,
        train_loop_config={"unit": packed(unit), "root": root, "slots": dataclasses.asdict(slots)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=0 if slots.kept else slots.workers,
            use_gpu=bool(slots.gpus),
            resources_per_worker=None if slots.kept else slots.bundle,
        ),
        run_config=ray.train.RunConfig(
            name=_name(unit),
            storage_path=scratch,
            # `attempt` returns a worker's exceptions as text, so only lost processes and nodes count.
            failure_config=ray.train.FailureConfig(max_failures=LOSSES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )


def _loop(config: dict[str, Any]) -> dict[str, Any]:
    """Resumes a unit from its last checkpoint, trains and commits it; runs in each of its worker processes."""
    slots = Slots(**config["slots"])
    settle(slots)
    unit, artefacts = unpacked(config["unit"]), Store(config["root"])
    if slots.workers > 1 and artefacts.exists(_failure(unit)):  # why the processes were started again
        return json.loads(artefacts.read(_failure(unit)))
    options: dict[str, Any] = {"tell": _nothing}
    if not slots.kept:
        options |= {"state": _state(), "save": _save}
    if ray.train.get_context().get_world_rank() == 0:
        progress = _Progress(unit, artefacts)
        options |= {"tell": progress.tell, "report": progress.report}
    answer = attempt(worker("finetune", artefacts.root, _device(slots)), unit, **options)
    if slots.workers > 1 and not is_receipt(answer):
        _fail(unit, answer, artefacts)
    return answer


def _device(slots: Slots) -> str:
    """Returns this process's device; of several processes on one node all see all GPUs."""
    if not slots.gpus:
        return "cpu"
    import torch
    from ray.train.torch import get_device

    device = get_device()
    if slots.workers > 1:
        torch.cuda.set_device(device)
    return str(device)


def _nothing(words: str) -> None:
    """Progress of a process that is not the first."""


def _fail(unit: Unit, answer: dict[str, Any], artefacts: Store) -> None:
    """Keeps the first failed process's answer and raises, so that Train ends the others, which wait for this one."""
    if not artefacts.exists(_failure(unit)):
        artefacts.write_json(_failure(unit), answer)
    raise RuntimeError(f"{unit.label}: one of its processes failed")


def _state() -> bytes | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return Path(folder, _STATE).read_bytes()


def _save(step: int, state: bytes) -> None:
    """Reports a checkpoint, as all processes of a trainer have to; the first one's state is that of all."""
    if ray.train.get_context().get_world_rank():
        ray.train.report({"step": step})
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, _STATE).write_bytes(state)
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
