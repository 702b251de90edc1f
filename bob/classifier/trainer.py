"""Trainings of the classifier from start to end: epochs, evaluation, resuming. Plain PyTorch, no Ray.

`train` is pure: it gives the same bits for the same seed on one machine, in a for-loop and under a scheduler.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bob import backbones, store
from bob.classifier.data import Arrays, Data
from bob.classifier.lockstep import Trainer, Training, run_epoch
from bob.classifier.results import failure
from bob.core import training_state
from bob.core.step_table import STEPS

__all__ = ["Course", "Trainer", "Training", "train", "train_together"]


def train(
    data: Data,
    training: Training,
    *,
    device: str = "cpu",
    state: bytes | None = None,
    save: training_state.Save | None = None,
    save_every: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Trains a classifier from the pre-trained weights; yields one row after each epoch.

    Args:
        data: all images; `data.test` is called only under `with_test`.
        training: what is trained, and how.
        device: torch's name of the device to train on.
        state: state to resume from; a damaged one, or one of another training, is reported and ignored.
        save: called with (epochs done, state) at the end of each epoch except the last.
        save_every: least number of seconds between two calls of `save`.

    Yields:
        epoch (1-based), train_loss, train_n, val_accuracy in [0, 1], val_loss, val_n; under `with_test`, in new best
        epochs only, also test_accuracy, test_n, test_class_accuracies and test_class_n. A training whose losses are
        not finite ends with a row of NaNs. A resumed one yields the rows of its earlier epochs first.

    Raises:
        ValueError: if the backbone is unknown or has no weights, or if there are no test images under `with_test`.
    """
    course = Course(data, training, device=device, state=state, save=save, save_every=save_every)
    for _, row in train_together([course]):
        yield row


def train_together(courses: Sequence["Course"]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Trains several points of a sweep in lockstep: each gives the rows, in the bits, that it gives by itself.

    One whose losses are not finite leaves the group. One that resumes from an earlier epoch than others trains alone
    until it has caught up.

    Args:
        courses: trainings on the same data that differ in their points only.

    Yields:
        Number of the course, and its row; see `train`.
    """
    for number, course in enumerate(courses):
        course.trainer.views = courses[0].trainer.views  # of the same images: kept once
        yield from ((number, row) for row in list(course.rows))
    while going := [number for number, course in enumerate(courses) if not course.ended]:
        epoch = min(courses[number].epoch for number in going)
        group = [number for number in going if courses[number].epoch == epoch]
        trainers = [courses[number].trainer for number in group]
        done = run_epoch(trainers, epoch) if len(trainers) > 1 else [trainers[0].run_epoch(epoch)]
        for number, (train_loss, count) in zip(group, done, strict=True):
            yield number, courses[number].after(train_loss, count)


class Course:
    """One training from its start, or from its saved state, to its end: a row after each epoch. See `train`."""

    def __init__(
        self,
        data: Data,
        training: Training,
        *,
        device: str = "cpu",
        state: bytes | None = None,
        save: training_state.Save | None = None,
        save_every: float = 0.0,
    ) -> None:
        if training.with_test and data.test is None:
            raise ValueError("a final training wants test images, but data.test is None: give it a loader")
        self.trainer = Trainer(data, training, torch.device(device))
        self._identity = _identity(data, training, self.trainer.backbone)
        self.rows: list[dict[str, Any]] = []
        """Of the epochs so far."""
        if resumed := training_state.unpack(state, self._identity, tell=print):
            self.trainer.restore(resumed["trainer"])
            self.rows = resumed["rows"]
        self._test: Arrays | None = None
        self._save, self._save_every, self._saved, self._failed = save, save_every, time.monotonic(), False

    @property
    def epoch(self) -> int:
        """The epoch to train next, 1-based."""
        return len(self.rows) + 1

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or a loss was not finite."""
        return self._failed or self.epoch > self.trainer.training.epochs

    def after(self, train_loss: float, count: int) -> dict[str, Any]:
        """Evaluates after an epoch and saves the state if it is time to; returns the epoch's row.

        Args:
            train_loss: mean loss of the epoch.
            count: number of images of the epoch.
        """
        trainer, training, epoch = self.trainer, self.trainer.training, self.epoch
        row = _epoch_row(trainer, epoch, train_loss, count)
        if not math.isfinite(row["val_loss"]):
            self._failed = True
            return row
        if training.with_test and row["val_accuracy"] > max((past["val_accuracy"] for past in self.rows), default=-1.0):
            assert trainer.data.test is not None
            self._test = self._test or trainer.data.test()
            row |= _test_row(trainer.logits(self._test[0]), self._test[1])
        self.rows.append(row)
        due = time.monotonic() - self._saved >= self._save_every
        if self._save is not None and epoch < training.epochs and due:
            content = {"rows": self.rows, "trainer": trainer.state()}
            self._save(epoch, training_state.pack(self._identity, content))
            self._saved = time.monotonic()
        return row


def _identity(data: Data, training: Training, backbone: backbones.Backbone) -> str:
    """Hash of all that a state depends on. Its arguments and their order must stay, or no saved state resumes."""
    which = (training.point, training.settings, training.epochs, training.seed, training.mixup, training.with_test)
    sizes = [data.copies, *map(len, (data.real, data.synthetic, data.val))]
    return store.key(STEPS["classify"].version, backbone.name, backbone.identity, *which, sizes)


def _epoch_row(trainer: Trainer, epoch: int, train_loss: float, count: int) -> dict[str, Any]:
    """An epoch evaluated on the validation images; NaNs if a loss is not finite."""
    row: dict[str, Any] = {"epoch": epoch, "train_n": count, "val_n": len(trainer.data.val)}
    if not math.isfinite(train_loss):
        return row | failure(epoch)
    accuracy, val_loss = _measure(trainer.logits(trainer.data.val), trainer.data.val_labels)
    if not math.isfinite(val_loss):  # the last step broke the weights, so the accuracy means nothing
        return row | failure(epoch)
    return row | {"train_loss": train_loss, "val_accuracy": accuracy, "val_loss": val_loss}


def _measure(logits: Tensor, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean cross-entropy in nats."""
    targets = torch.from_numpy(np.array(labels)).long()
    accuracy = (logits.argmax(1) == targets).double().mean().item()
    return accuracy, nn.functional.cross_entropy(logits, targets).item()


def _test_row(logits: Tensor, labels: np.ndarray) -> dict[str, Any]:
    """Test accuracy over all images and over those of each class, with their numbers."""
    correct = (logits.argmax(1).numpy() == labels).astype(np.float64)
    counts = np.bincount(labels, minlength=logits.shape[1])
    sums = np.bincount(labels, weights=correct, minlength=logits.shape[1])
    return {
        "test_accuracy": float(correct.mean()),
        "test_n": len(labels),
        "test_class_accuracies": (sums / np.maximum(counts, 1)).tolist(),
        "test_class_n": counts.tolist(),
    }
