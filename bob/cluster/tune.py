"""Sweeps and final trainings on Ray Tune: every point of every run is a trial of one grid."""

import dataclasses
import functools
import json
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig, Tuner

from bob.cluster.session import LOSSES, Slots, attempt, received, settle
from bob.store import Store, key
from bob.types import Receipt, Unit
from bob.workers import ClassifyWorker

__all__ = ["run"]


def run(step: str, units: Sequence[Unit], artefacts: Store, slots: Slots) -> Iterator[Receipt]:
    """Longest trainings first; processes are reused, so a trial costs no new imports or decoding.

    A trial commits its own receipt table, which is what selection and tables read; Tune's state is
    scratch and is never read again.
    """
    ordered = sorted(units, key=lambda unit: -unit.size)
    texts = [json.dumps(dataclasses.asdict(unit)) for unit in ordered]
    arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    trainable = tune.with_resources(
        functools.partial(_trial, root=artefacts.root, slots=slots),
        {"cpu": 0.5 if slots.gpus else 1, "gpu": slots.gpus},
    )
    tuner = Tuner(
        trainable,
        param_space={"unit": tune.grid_search(texts)},
        tune_config=TuneConfig(
            metric="val_accuracy",
            mode="max",
            reuse_actors=True,
            max_concurrent_trials=slots.count,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name=f"sweep-{key([unit.target for unit in units])}",
            storage_path=artefacts.scratch("tune"),
            failure_config=tune.FailureConfig(max_failures=LOSSES),  # of processes: nothing is raised there
            callbacks=[_Forward(arrived)],
            verbose=0,
        ),
    )
    thread = threading.Thread(target=_fit, args=(tuner, arrived), daemon=True)
    thread.start()
    while (answer := arrived.get()) is not None:
        if isinstance(answer, BaseException):
            raise answer
        yield received(answer)
    thread.join()


def _fit(tuner: Tuner, arrived: queue.Queue) -> None:
    try:
        errors = tuner.fit().errors
        arrived.put(RuntimeError(f"{len(errors)} trainings failed; the first: {errors[0]}") if errors else None)
    except BaseException as error:  # whatever it is, the generator that waits has to raise it
        arrived.put(error)


class _Forward(Callback):
    """Hands a trial's answer to the driver the moment it ends."""

    def __init__(self, arrived: queue.Queue) -> None:
        self._arrived = arrived

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the tuner into its scratch folder, where nobody reads it

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Called by Tune."""
        self._arrived.put(json.loads(trial.last_result["answer"]))


def _trial(config: dict[str, Any], *, root: str, slots: Slots) -> None:
    """In a process that serves many trials."""
    settle(slots)
    unit = Unit(**json.loads(config["unit"]))
    answer = attempt(_worker(root, slots.device), unit, report=lambda row: tune.report({**row, "answer": ""}))
    tune.report({"epoch": unit.size, "val_accuracy": 0.0, "loss": 0.0, "answer": json.dumps(answer)})


@functools.cache
def _worker(root: str, device: str) -> ClassifyWorker:
    return ClassifyWorker(root, device=device)
