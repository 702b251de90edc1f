"""Training curves for TensorBoard, MLflow or Weights & Biases, written while the trainings run."""

import functools
import importlib
import importlib.util
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bob.core.types import Unit
from bob.store import Store, key

__all__ = ["Curves", "require"]

_EXTRAS = ("mlflow", "wandb")
"""Packages that are not dependencies; the extra that installs one has its name."""
_MLFLOW = "MLFLOW_TRACKING_URI"
_SEND_TIMEOUT = 1_800.0  # seconds


def require(kind: str, artefacts: Store) -> None:
    """Checks, before any work starts, that curves can be written.

    Args:
        kind: `tensorboard`, `mlflow` or `wandb`.
        artefacts: the command's store.

    Raises:
        ValueError: if the package of `kind` is missing, or the tracker needs a local folder and the store is remote.
    """
    if kind in _EXTRAS and importlib.util.find_spec(kind) is None:
        raise ValueError(f"--log {kind} needs a package that is not here: pip install 'beyond-objects[{kind}]'")
    if "://" in artefacts.root and (kind == "tensorboard" or (kind == "mlflow" and not os.environ.get(_MLFLOW))):
        instead = f"set {_MLFLOW}" if kind == "mlflow" else "choose --log mlflow or wandb"
        raise ValueError(
            f"--log {kind} writes to a folder, and {artefacts.place()} is none: {instead}, or give --out a folder"
        )


class Curves:
    """Curves of one step's trainings. A tracker that fails after it was opened is reported once and used no more."""

    def __init__(self, kind: str, artefacts: Store) -> None:
        """Opens the tracker.

        Args:
            kind: `tensorboard`, `mlflow` or `wandb`.
            artefacts: curves are written below `logs/` of a local store.

        Raises:
            ValueError: if the tracker cannot be used: see `require`; or it does not answer, or rejects the user.
        """
        require(kind, artefacts)
        is_folder = "://" not in artefacts.root
        root = Path(f"{artefacts.root}/logs/{kind}" if is_folder else tempfile.mkdtemp(prefix="bob-logs-"))
        root.mkdir(parents=True, exist_ok=True)
        self._kind, self._works = kind, True
        self._curves, self._last_steps, self._ending = dict[str, Any](), dict[str, int](), list[threading.Thread]()
        try:
            self._open = _tracker(kind, root)
        except Exception as error:  # each tracker has exceptions of its own
            raise ValueError(f"--log {kind} cannot be used: {error}") from error

    def add(self, unit: Unit, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve of a training.

        Args:
            unit: the training.
            step: epoch, or optimiser step of a fine-tune; a step up to the last one added is not written again.
            values: name -> value.
        """
        if step <= self._last_steps.get(unit.target, 0):
            return
        self._last_steps[unit.target] = step
        self._call(self._add, unit, step, values)

    def _add(self, unit: Unit, step: int, values: Mapping[str, float]) -> None:
        if unit.target not in self._curves:
            self._curves[unit.target] = self._open(unit)
        self._curves[unit.target].add(step, values)

    def end(self, unit: Unit) -> None:
        """Completes the curves of a training, without waiting for what the tracker still has to send."""
        if curve := self._curves.pop(unit.target, None):
            self._ending.append(threading.Thread(target=self._call, args=(curve.end,), daemon=True))
            self._ending[-1].start()

    def close(self) -> None:
        """Waits until the tracker has sent everything, for half an hour at most."""
        end = time.monotonic() + _SEND_TIMEOUT
        for thread in self._ending:
            thread.join(max(0.0, end - time.monotonic()))

    def _call(self, action: Callable[..., None], *arguments: Any) -> None:
        if not self._works:
            return
        try:
            action(*arguments)
        except Exception as error:  # a tracker that is away must not end a job of days
            print(f"--log {self._kind} fails, so curves end here: {error}", flush=True)
            self._works = False


def _tracker(kind: str, root: Path) -> Callable[[Unit], Any]:
    """Opens a tracker; returns a function that opens the curves of one training, with `add` and `end`."""
    if kind == "tensorboard":
        return functools.partial(_EventFile, root)
    if kind == "mlflow":
        uri = os.environ.get(_MLFLOW) or f"sqlite:///{root}/mlflow.db"
        client = importlib.import_module("mlflow").MlflowClient(tracking_uri=uri)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not experiment:
            known = client.get_experiment_by_name("bob")
            experiment = known.experiment_id if known else client.create_experiment("bob")
        return functools.partial(_MlflowRun, client, experiment)
    wandb: Any = importlib.import_module("wandb")
    if os.environ.get("WANDB_MODE") not in ("offline", "disabled") and not wandb.login(prompt=False):
        raise ValueError("no API key found: set WANDB_API_KEY, or run `wandb login`")
    return functools.partial(_WandbRun, wandb, root)


class _EventFile:
    """TensorBoard event file of one training, in a folder named after the training's target."""

    def __init__(self, root: Path, unit: Unit) -> None:
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(root / _name(unit)), flush_secs=30)
        self._settings, self._last = _settings(unit), dict[str, float]()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        # The tags of Ray Tune's logger, which wrote these files at first: old and new curves share a chart.
        self._last = {f"ray/tune/{name}": value for name, value in values.items() if not math.isnan(value)}
        for tag, value in self._last.items():
            self._writer.add_scalar(tag, value, global_step=step)
        self._writer.flush()

    def end(self) -> None:
        from tensorboardX.summary import hparams

        if self._last:
            for summary in hparams(self._settings, self._last):  # `add_hparams` begins a second file in a subfolder
                self._writer.file_writer.add_summary(summary)
        self._writer.close()


class _MlflowRun:
    """MLflow run of one training, with the training's settings as parameters."""

    def __init__(self, client: Any, experiment: str, unit: Unit) -> None:
        run = client.create_run(experiment, tags={"trial_name": _name(unit)}, run_name=_name(unit))
        self._client, self._id = client, run.info.run_id
        for name, value in _settings(unit).items():
            client.log_param(self._id, name, value)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in {"training_iteration": float(step), **values}.items():
            self._client.log_metric(self._id, name, value, step=step)

    def end(self) -> None:
        self._client.set_terminated(self._id, status="FINISHED")


class _WandbRun:
    """Weights & Biases run of one training, in the group of its step."""

    def __init__(self, wandb: Any, root: Path, unit: Unit) -> None:
        folder = root / _name(unit)
        folder.mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere if the folder is missing
        self._run = wandb.init(
            id=key(unit.target),
            name=_name(unit),
            project=os.environ.get("WANDB_PROJECT", "bob"),
            group=os.environ.get("WANDB_GROUP_NAME") or unit.step,
            dir=str(folder),
            config=_settings(unit) | {"trial_log_path": str(folder)},
            reinit="create_new",  # beside the runs of other trainings
            settings=wandb.Settings(console="off", silent=True),  # the process prints for the whole job
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"training_iteration": step, **values}, step=step)

    def end(self) -> None:
        self._run.finish()


def _name(unit: Unit) -> str:
    return unit.target.removesuffix(".parquet").removesuffix("/manifest.json")


def _settings(unit: Unit) -> dict[str, Any]:
    """Settings of a training that users compare between trainings."""
    work = unit.work
    if unit.step == "finetune":
        settings = vars(work.settings).items()
        plain = {name: value for name, value in settings if isinstance(value, int | float | str)}
        return {"dataset": work.dataset, "checkpoint": work.checkpoint, "seed": work.seed} | plain
    point = vars(work.point) if unit.planned == "sweep" else {}
    return {"phase": work.phase, **vars(work.coordinates), **point}
