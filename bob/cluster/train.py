"""Fine-tunes on Ray Train: one trainer per unit, named by the unit's key, so that Train finds its checkpoint."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer, get_device

from bob.cluster.curves import Curves
from bob.cluster.resources import Slots
from bob.cluster.session import LOSSES, attempt, received, settle
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
            return unit, _fit(unit, artefacts.root, scratch, slots)
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


def _name(unit: Unit) -> str:
    return unit.target.split("/")[-2]


def _fit(unit: Unit, root: str, scratch: str, slots: Slots) -> dict[str, Any]:
    """Trains one unit; resumes from its checkpoint if Ray loses the controlling process."""
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


def _trainer(unit: Unit, root: str, scratch: str, slots: Slots) -> TorchTrainer:
    return TorchTrainer(
        _loop,
        train_loop_config={"unit": packed(unit), "root": root, "slots": dataclasses.asdict(slots)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=1, use_gpu=bool(slots.gpus), resources_per_worker=slots.bundle
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
    """Resumes a unit from its last checkpoint, trains and commits it; runs in the worker process."""
    from bob.steps.finetune import FinetuneWorker

    settle(Slots(**config["slots"]))
    unit, checkpoint = unpacked(config["unit"]), ray.train.get_checkpoint()
    state = None
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = Path(folder, _STATE).read_bytes()
    worker = FinetuneWorker(config["root"], device=str(get_device()))
    progress = _Progress(unit, Store(config["root"]))
    return attempt(worker, unit, state=state, save=_save, tell=progress.tell, report=progress.report)


def _save(step: int, state: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, _STATE).write_bytes(state)
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
