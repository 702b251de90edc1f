"""Sweeps and final trainings on Ray Tune.

A trial is a group of points of one run's sweep, on a GPU, or one training. All points of a run see the same pictures in
the same order, so that a process which trains several in lockstep gathers, augments and mixes each batch once for all.
Tune cannot let trials of different processes share a batch, so that they are one trial; each point has its own table,
receipt and saved state nevertheless, the same as if it were a trial by itself.
"""

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
from bob.cluster.feed import Feed
from bob.cluster.resources import Slots
from bob.cluster.session import CROWDED, LOSSES, attempt_together, received, settle, worker
from bob.cluster.sharing import Trainings, kind
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Unit
from bob.steps.classify import ClassifyWorker
from bob.steps.workers import unpacked
from bob.store import Store, key

__all__ = ["run"]


def run(
    step: str, units: Sequence[Unit], artefacts: Store, slots: Trainings, *, curves: Curves | None = None
) -> Iterator[Receipt]:
    """Runs trainings as trials, longest first, and yields their receipts in the order of completion.

    A final training may come with the sweep that it chooses from: it starts when that is done.

    Trials reuse processes, so they import and decode nothing again. A trial commits its result table, which selection
    and tables read; Tune's own state is scratch. A training that runs out of memory beside others waits until all have
    ended, and is then trained alone, so that its result does not depend on its neighbours.
    """
    share_waiting_processes()
    if slots.notice:
        print(f"  {slots.notice}", flush=True)
    crowded: dict[str, Unit] = {}
    by_target, feed = {unit.target: unit for unit in units}, Feed(units, points=lambda unit: slots.points[kind(unit)])
    for answer in _answers(feed, artefacts, _Pass(slots=slots.shared, count=slots.count), curves):
        if CROWDED in answer:
            crowded[answer["target"]] = by_target[answer["target"]]
            print(f"  {by_target[answer['target']].label}: {answer[CROWDED]}, waits to be trained alone", flush=True)
        else:
            yield received(answer)
    if crowded:
        alone = _Pass(slots=dict.fromkeys(slots.shared, slots.alone), count=slots.alone.count, alone=True)
        for answer in _answers(Feed(list(crowded.values())), artefacts, alone, curves):
            receipt = received(answer)
            yield dataclasses.replace(receipt, note=f"{receipt.note}; alone, after memory ran out beside others")
    if feed.left:  # final trainings whose sweep was not done without the crowded ones
        yield from run(step, feed.left, artefacts, slots, curves=curves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pass:
    """A pass over trainings: beside others, then of those that ran out of memory."""

    slots: Mapping[str, Slots]
    """Kind of training -> resources."""
    count: int
    """Most trainings at once."""
    alone: bool = False
    """Whether no training shares its device with another."""

    def of(self, unit: Unit) -> Slots:
        """Resources of a training."""
        return self.slots[kind(unit)]

    def is_alone(self, unit: Unit) -> bool:
        """Whether a training shares its device with no other: also if it has a whole GPU, or is the only one."""
        return self.alone or self.of(unit).gpus >= 1 or self.count == 1


def _answers(feed: Feed, artefacts: Store, trainings: _Pass, curves: Curves | None) -> Iterator[dict[str, Any]]:
    """Runs a feed's trainings as trials and yields the answers of `attempt`, in the order of completion."""
    arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    trial = functools.partial(classify, root=artefacts.root, trainings=trainings, tells=curves is not None)
    vars(trial)["__name__"] = classify.__name__  # the actors' name in the dashboard
    tuner = Tuner(
        tune.with_resources(trial, lambda config: tune.PlacementGroupFactory([trainings.of(_units(config)[0]).bundle])),
        tune_config=TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=feed,
            num_samples=len(feed.trials),
            scheduler=_Scheduler(),
            reuse_actors=True,
            max_concurrent_trials=trainings.count,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name=f"{'alone' if trainings.alone else 'sweep'}-{key(feed.targets)}",
            storage_path=artefacts.scratch("tune"),
            failure_config=tune.FailureConfig(max_failures=LOSSES),  # lost processes: `attempt` catches the rest
            callbacks=[_Forward(arrived, feed, artefacts.root, curves)],
            verbose=0,
        ),
    )
    thread = threading.Thread(target=_fit, args=(tuner, arrived), daemon=True)
    thread.start()
    while (answer := arrived.get()) is not None:
        if isinstance(answer, BaseException):
            raise answer
        yield answer
    thread.join()


def _fit(tuner: Tuner, arrived: queue.Queue) -> None:
    try:
        errors = tuner.fit().errors
        arrived.put(RuntimeError(f"{len(errors)} trials failed; the first: {errors[0]}") if errors else None)
    except BaseException as error:  # `run` raises it in the main thread
        arrived.put(error)


class _Scheduler(FIFOScheduler):
    """Runs every training to its end, except in sweeps with ASHA, which compares the trainings of one run."""

    def __init__(self) -> None:
        super().__init__()
        self._halving: dict[str, ASHAScheduler] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Tune."""
        unit = _units(trial.config)[0]  # with ASHA the only one
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
    """Passes the answers of each finished trial to `run`, and commits the trainings that ASHA stops early."""

    def __init__(self, arrived: queue.Queue, feed: Feed, root: str, curves: Curves | None) -> None:
        self._arrived, self._feed, self._root, self._curves = arrived, feed, root, curves
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
                self._curves.add(_units(trial.config)[result["number"]], row["epoch"], values)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Called by Tune."""
        rows = {row["epoch"]: row for row in self._rows.pop(trial.trial_id, [])}  # a lost process's epochs come twice
        answers: list[dict[str, Any]] = json.loads(trial.last_result["answer"] or "[]")
        for unit, answer in zip(_units(trial.config), answers or [{}], strict=True):
            if self._curves and CROWDED not in answer:
                self._curves.end(unit)
            if answer:
                (self._feed.drop if CROWDED in answer else self._feed.done)(answer["target"])
                self._arrived.put(answer)
            else:
                self._commit(unit, trial, list(rows.values()))

    def _commit(self, unit: Unit, trial: Any, rows: list[dict[str, Any]]) -> None:
        """Commits a training that ASHA has stopped."""
        committer = ClassifyWorker(self._root, device="cpu")
        times = Stopwatch(lap="work", begun=time.monotonic() - trial.last_result["time_total_s"])
        receipt = committer.commit(unit, rows, point=unit.work.point, times=times)
        note = f"stopped after epoch {len(rows)}, {receipt.note}"
        self._feed.done(unit.target)
        self._arrived.put(dataclasses.asdict(dataclasses.replace(receipt, note=note)))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Called by Tune for a trial whose process was lost too often."""
        for unit in _units(trial.config):
            self._feed.drop(unit.target)


def _units(config: Mapping[str, Any]) -> list[Unit]:
    return [unpacked(text) for text in config["units"]]


def classify(config: dict[str, Any], *, root: str, trainings: _Pass, tells: bool) -> None:
    """Trains the units of a trial and reports an answer for each; a process runs many trials in turn.

    Args:
        config: the packed units, under `units`: points of one run's sweep, or one training.
        root: root of the store.
        trainings: resources of the units.
        tells: whether to report each epoch, for curves.
    """
    units = _units(config)
    first, slots = units[0], trainings.of(units[0])
    settle(slots)

    def report(unit: Unit, row: Mapping[str, Any]) -> None:
        told = {"row": json.dumps(row), "number": units.index(unit), "answer": ""}
        tune.report({"epoch": row["epoch"], "val_accuracy": row["val_accuracy"], **told})

    # A report waits 0.4 s for the driver, and an epoch takes 0.6 s: report each epoch only to ASHA and for curves.
    halved = first.work.sweep.search == "asha" and first.planned == "sweep"
    answers = attempt_together(
        worker("classify", root, slots.device),
        units,
        report=report if halved or tells else None,
        alone=trainings.is_alone(first),
    )
    end = {"row": "", "number": 0, "answer": json.dumps(answers)}
    tune.report({"epoch": first.size + 1, "val_accuracy": 0.0, **end})
