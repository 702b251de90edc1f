"""Sweeps and final trainings on Ray Tune: each training of each run is a trial of one grid."""

import dataclasses
import functools
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from bob.cluster._private import share_waiting_processes
from bob.cluster.curves import Curves
from bob.cluster.resources import Slots
from bob.cluster.session import LOSSES, attempt, received, settle
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Unit
from bob.steps.classify import ClassifyWorker
from bob.steps.workers import packed, unpacked
from bob.store import Store, key

__all__ = ["longest_first", "run"]


def run(
    step: str, units: Sequence[Unit], artefacts: Store, slots: Slots, *, curves: Curves | None = None
) -> Iterator[Receipt]:
    """Runs trainings as trials, longest first, and yields their receipts in the order of completion.

    Trials reuse processes, so they import and decode nothing again. A trial commits its result table, which selection
    and tables read; Tune's own state is scratch.
    """
    share_waiting_processes()
    texts = [packed(unit) for unit in longest_first(units)]
    arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    trial = functools.partial(classify, root=artefacts.root, slots=slots, tells=curves is not None)
    vars(trial)["__name__"] = classify.__name__  # the actors' name in the dashboard
    trainable = tune.with_resources(trial, tune.PlacementGroupFactory([slots.bundle]))
    tuner = Tuner(
        trainable,
        param_space={"unit": tune.grid_search(texts)},
        tune_config=TuneConfig(
            metric="val_accuracy",
            mode="max",
            scheduler=_Scheduler(),
            reuse_actors=True,
            max_concurrent_trials=slots.count,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name=f"sweep-{key([unit.target for unit in units])}",
            storage_path=artefacts.scratch("tune"),
            failure_config=tune.FailureConfig(max_failures=LOSSES),  # lost processes: `attempt` catches the rest
            callbacks=[_Forward(arrived, artefacts.root, curves)],
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


def longest_first(units: Sequence[Unit]) -> list[Unit]:
    """Returns trainings by falling cost, so that no long one starts last; equal ones by run."""
    return sorted(units, key=lambda unit: (-unit.size * unit.work.cost, unit.group))


def _fit(tuner: Tuner, arrived: queue.Queue) -> None:
    try:
        errors = tuner.fit().errors
        arrived.put(RuntimeError(f"{len(errors)} trainings failed; the first: {errors[0]}") if errors else None)
    except BaseException as error:  # `run` raises it in the main thread
        arrived.put(error)


class _Scheduler(FIFOScheduler):
    """Runs every training to its end, except in sweeps with ASHA, which compares the trainings of one run."""

    def __init__(self) -> None:
        super().__init__()
        self._halving: dict[str, ASHAScheduler] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Tune."""
        unit = _unit(trial.config)
        settings = unit.work.sweep
        if settings.search != "asha" or unit.planned == "final" or result["answer"]:
            return TrialScheduler.CONTINUE
        if unit.group not in self._halving:
            self._halving[unit.group] = ASHAScheduler(
                time_attr="epoch", metric="val_accuracy", mode="max", max_t=settings.sweep_epochs + 1
            )
        halving = self._halving[unit.group]
        if result["epoch"] == 1:
            halving.on_trial_add(tune_controller, trial)
        return halving.on_trial_result(tune_controller, trial, result)


class _Forward(Callback):
    """Passes each finished trial's answer to `run`, and commits the trainings that ASHA stops early."""

    def __init__(self, arrived: queue.Queue, root: str, curves: Curves | None) -> None:
        self._arrived, self._root, self._curves = arrived, root, curves
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._start = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into its scratch folder, and nobody reads them

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Called by Tune."""
        if "row" in result and not result["answer"]:
            row = json.loads(result["row"])
            self._rows.setdefault(trial.trial_id, []).append(row)
            if self._curves:
                values = {name: value for name, value in row.items() if isinstance(value, float)}
                self._curves.add(_unit(trial.config), row["epoch"], values)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Called by Tune."""
        rows = {row["epoch"]: row for row in self._rows.pop(trial.trial_id, [])}  # a lost process's epochs come twice
        if self._curves:
            self._curves.end(_unit(trial.config))
        if answer := trial.last_result["answer"]:
            self._arrived.put(json.loads(answer))
            return
        unit, worker = _unit(trial.config), ClassifyWorker(self._root, device="cpu")
        times = Stopwatch(lap="work", begun=time.monotonic() - trial.last_result["time_total_s"])
        receipt = worker.commit(unit, list(rows.values()), point=unit.work.point, times=times)
        note = f"stopped after epoch {len(rows)}, {receipt.note}"
        self._arrived.put(dataclasses.asdict(dataclasses.replace(receipt, note=note)))


def _unit(config: Mapping[str, Any]) -> Unit:
    return unpacked(config["unit"])


def classify(config: dict[str, Any], *, root: str, slots: Slots, tells: bool) -> None:
    """Trains one unit as a trial and reports the answer of `attempt`; a process runs many trials in turn.

    Args:
        config: the packed unit, under `unit`.
        root: root of the store.
        slots: resources of the unit.
        tells: whether to report each epoch, for curves.
    """
    settle(slots)
    unit = _unit(config)

    def report(row: Mapping[str, Any]) -> None:
        tune.report({"epoch": row["epoch"], "val_accuracy": row["val_accuracy"], "row": json.dumps(row), "answer": ""})

    # A report waits 0.4 s for the driver, and an epoch takes 0.6 s: report each epoch only to ASHA and for curves.
    halved = unit.work.sweep.search == "asha" and unit.planned == "sweep"
    answer = attempt(_worker(root, slots.device), unit, report=report if halved or tells else None)
    tune.report({"epoch": unit.size + 1, "val_accuracy": 0.0, "row": "", "answer": json.dumps(answer)})


@functools.cache
def _worker(root: str, device: str) -> ClassifyWorker:
    return ClassifyWorker(root, device=device)
