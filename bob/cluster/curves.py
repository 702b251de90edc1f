"""Curves of trainings as they come, for TensorBoard, MLflow or Weights & Biases: Ray Tune's own loggers write them.

Fine-tunes are no trials of Tune, and trials of ours are described by whole units. So the loggers are handed a
stand-in for a trial, with what is worth showing of a unit as its parameters.
"""

import importlib.util
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bob.core.types import Unit
from bob.store import Store, key

__all__ = ["Curves", "require"]

_EXTRAS = ("mlflow", "wandb")
"""Packages that Ray does not bring; an extra of ours has the name of each."""
_MLFLOW = "MLFLOW_TRACKING_URI"


def require(kind: str, artefacts: Store) -> None:
    """Refuses, before anything is done, curves that cannot be written.

    Args:
        kind: `tensorboard`, `mlflow` or `wandb`.
        artefacts: where the command keeps what it makes.

    Raises:
        ValueError: if its package is missing, or there is no place for them; says what to do.
    """
    if kind in _EXTRAS and importlib.util.find_spec(kind) is None:
        raise ValueError(f"--log {kind} needs a package that is not here: pip install 'beyond-objects[{kind}]'")
    if "://" in artefacts.root and (kind == "tensorboard" or (kind == "mlflow" and not os.environ.get(_MLFLOW))):
        instead = f"set {_MLFLOW}" if kind == "mlflow" else "choose --log mlflow or wandb"
        raise ValueError(
            f"--log {kind} writes to a folder, and {artefacts.place()} is none: {instead}, or give --out a folder"
        )


@dataclass(frozen=True)
class _Trial:
    """What Ray's loggers ask of a trial."""

    unit: Unit
    root: str

    def __hash__(self) -> int:
        return hash(self.unit.target)

    def __str__(self) -> str:
        return self.unit.target.removesuffix(".parquet").removesuffix("/manifest.json")

    @property
    def trial_id(self) -> str:
        return key(self.unit.target)

    @property
    def experiment_dir_name(self) -> str:
        return self.unit.step

    @property
    def config(self) -> dict[str, Any]:
        work = self.unit.work
        if self.unit.step == "finetune":
            settings = vars(work.settings).items()
            plain = {name: value for name, value in settings if isinstance(value, int | float | str)}
            return {"dataset": work.dataset, "checkpoint": work.checkpoint, "seed": work.seed} | plain
        point = vars(work.point) if self.unit.planned == "sweep" else {}
        return {"phase": work.phase, **vars(work.coordinates), **point}

    @property
    def evaluated_params(self) -> dict[str, Any]:
        return self.config

    @property
    def local_path(self) -> str:
        folder = Path(self.root, str(self))
        folder.mkdir(parents=True, exist_ok=True)  # W&B's logger takes it to be there, MLflow's does not ask
        return str(folder)

    def init_local_path(self) -> None:
        """Asked for by TensorBoard's logger, which then asks for the path."""


class Curves:
    """Of the trainings of one step. A tracker that fails later than at the start is told of, and used no more."""

    def __init__(self, kind: str, artefacts: Store) -> None:
        """Opens the tracker.

        Args:
            kind: `tensorboard`, `mlflow` or `wandb`.
            artefacts: curves lie below `logs/` of a local one.

        Raises:
            ValueError: if it cannot be used: see `require`; or it is not there, or does not know the user.
        """
        require(kind, artefacts)
        is_folder = "://" not in artefacts.root
        self._root = f"{artefacts.root}/logs/{kind}" if is_folder else tempfile.mkdtemp(prefix="bob-logs-")
        Path(self._root).mkdir(parents=True, exist_ok=True)
        self._kind, self._drawn, self._works = kind, dict[str, int](), True
        try:
            self._logger = _logger(kind, self._root)
            self._logger.setup()
        except Exception as error:  # of whatever kind the tracker has
            raise ValueError(f"--log {kind} cannot be used: {error}") from error

    def add(self, unit: Unit, step: int, values: Mapping[str, float]) -> None:
        """One more point of a training's curves.

        Args:
            unit: the training.
            step: epoch, or optimiser step of a fine-tune; one that has come already is not drawn again.
            values: name -> value.
        """
        if step <= self._drawn.get(unit.target, 0):
            return
        trial = _Trial(unit, self._root)
        if unit.target not in self._drawn:
            self._hand("log_trial_start", trial)
        self._hand("log_trial_result", step, trial, {"training_iteration": step, **values})
        self._drawn[unit.target] = step

    def end(self, unit: Unit) -> None:
        """A training is done."""
        if unit.target in self._drawn:
            self._hand("log_trial_end", _Trial(unit, self._root))

    def close(self) -> None:
        """Waits until the tracker has sent all."""
        self._hand("on_experiment_end", [])

    def _hand(self, event: str, *about: Any) -> None:
        if not self._works:
            return
        try:
            getattr(self._logger, event)(*about)
        except Exception as error:  # a tracker that is away must not end a job of days
            print(f"--log {self._kind} fails, so curves end here: {error}", flush=True)
            self._works = False


def _logger(kind: str, root: str) -> Any:
    if kind == "tensorboard":
        from ray.tune.logger.tensorboardx import TBXLoggerCallback

        return TBXLoggerCallback()
    if kind == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get(_MLFLOW) or f"sqlite:///{root}/mlflow.db"
        return MLflowLoggerCallback(tracking_uri=uri, experiment_name="bob")
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project=os.environ.get("WANDB_PROJECT", "bob"))
