"""Step 4: real and synthetic images -> the accuracy of a downstream model (paper sec. 3.3, 4.1).

A short sweep over `SweepSettings.points`, `select` by validation accuracy, then a long training from the
pre-trained weights; its test accuracy is that of its best epoch on validation. `train` is pure: it
runs in a for-loop as under a scheduler, and gives the same bits for the same seed on one machine.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bob import backbones, store
from bob.classifier.data import Arrays, Data
from bob.classifier.trainer import Trainer
from bob.core import training_state
from bob.core.settings import Point, Run, SweepSettings
from bob.core.step_table import STEPS

__all__ = [
    "Data",
    "Point",
    "failure",
    "has_failed",
    "result_rows",
    "select",
    "train",
]


def train(
    data: Data,
    backbone_name: str,
    point: Point,
    *,
    settings: SweepSettings,
    epochs: int,
    seed: int,
    mixup: bool = True,
    with_test: bool = False,
    device: str = "cpu",
    state: bytes | None = None,
    save: training_state.Save | None = None,
    save_every: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Trains from the pre-trained weights; yields one row after each epoch.

    The learning-rate schedule spans `epochs`. Shuffles, augmentations, mixing and the head depend
    on `seed` and the epoch only, so the points of a sweep see the same pictures.

    Args:
        data: `data.test` is called only under `with_test`.
        backbone_name: a file of `bob/backbones/`.
        point: what the sweep varies.
        settings: the rest.
        epochs: `settings.sweep_epochs` or `settings.final_epochs`.
        seed: of the run.
        mixup: False leaves CutMix alone (the Diff-Mix rows).
        with_test: measure on the test set after each epoch that is the best on validation so far.
        device: where to train.
        state: to resume from; one that is damaged or of another training is told of and not used.
        save: called at the end of an epoch, but the last, with (epochs done, state).
        save_every: seconds that have to pass between two calls of `save`.

    Yields:
        epoch (1-based), train_loss, train_n, val_accuracy in [0, 1], val_loss, val_n; under
        `with_test` and only in new best epochs also test_accuracy, test_n, test_class_accuracies
        and test_class_n. A training whose losses are not finite ends with a row of NaNs. One that is
        resumed yields the rows of its earlier epochs first.

    Raises:
        ValueError: if the backbone is unknown or has no weights, or there is no test data to use.
    """
    if with_test and data.test is None:
        raise ValueError("a final training wants test images, but data.test is None: give it a loader")
    backbone = backbones.load(backbone_name)
    trainer = Trainer(data, backbone, point, settings, epochs, seed, mixup, torch.device(device))
    sizes = [data.copies, *map(len, (data.real, data.synthetic, data.val))]
    identity = store.key(
        STEPS["classify"].version,
        backbone.name,
        backbone.revision,
        point,
        settings,
        epochs,
        seed,
        mixup,
        with_test,
        sizes,
    )
    rows: list[dict[str, Any]] = []
    if held := training_state.unpack(state, identity, tell=print):
        trainer.restore(held["trainer"])
        rows = held["rows"]
    yield from rows
    test: Arrays | None = None
    saved = time.monotonic()
    for epoch in range(len(rows) + 1, epochs + 1):
        train_loss, count = trainer.run_epoch(epoch)
        row: dict[str, Any] = {"epoch": epoch, "train_n": count, "val_n": len(data.val)}
        if not math.isfinite(train_loss):
            yield row | failure(epoch)
            return
        accuracy, val_loss = _measure(trainer.logits(data.val), data.val_labels)
        if not math.isfinite(val_loss):  # its last step broke the weights: what they answer is no accuracy
            yield row | failure(epoch)
            return
        row |= {"train_loss": train_loss, "val_accuracy": accuracy, "val_loss": val_loss}
        if with_test and accuracy > max((of["val_accuracy"] for of in rows), default=-1.0):
            assert data.test is not None
            test = test or data.test()
            row |= _test_row(trainer.logits(test[0]), test[1])
        rows.append(row)
        if save is not None and epoch < epochs and time.monotonic() - saved >= save_every:
            save(epoch, training_state.pack(identity, {"rows": rows, "trainer": trainer.state()}))
            saved = time.monotonic()
        yield row


def select(histories: Sequence[tuple[Point, Sequence[dict[str, Any]]]]) -> Point:
    """The point with the highest validation accuracy at any of its epochs (paper sec. 4.1).

    Args:
        histories: of each of `SweepSettings.points`, in their order, the rows that `train` yielded.

    Returns:
        Of equals the one that got there at an earlier epoch, then the one earlier in the grid. One that has
        failed, whatever it reached before, is none to train for longer.

    Raises:
        ValueError: if every training of the sweep has failed.
    """
    candidates = [
        (-row["val_accuracy"], row["epoch"], index)
        for index, (_, history) in enumerate(histories)
        if not has_failed(history)
        for row in history
    ]
    if not candidates:
        raise ValueError(
            f"all {len(histories)} trainings of the sweep ended in a loss that is not finite, or ran out of memory:"
            " look at its learning rates, its batch and its images"
        )
    return histories[min(candidates)[2]][0]


def has_failed(history: Sequence[dict[str, Any]]) -> bool:
    """Whether a training broke off: with a loss that is not finite, or for want of memory."""
    return not history or not math.isfinite(history[-1]["val_accuracy"])


def failure(epoch: int) -> dict[str, Any]:
    """The row with which a training ends that broke off in this epoch."""
    return {"epoch": epoch, "train_loss": math.nan, "val_accuracy": math.nan, "val_loss": math.nan}


def result_rows(
    history: Sequence[dict[str, Any]],
    *,
    run: Run,
    key: str,
    phase: str,
    point: Point,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Rows of schema.RESULTS of one training.

    Every epoch gives train loss, val accuracy and val loss. The test metrics are those of the best
    epoch on validation: accuracy over images, its mean over classes, its mean over those of each group, and that of
    each class.

    Args:
        history: the rows that `train` yielded.
        run: gives the coordinates.
        key: of the run.
        phase: `sweep` or `final`.
        point: what was trained with.
        groups: of a long tail, `budget.groups`.
    """
    fixed = {name: getattr(run, name) for name in ("dataset", "shots", "method", "checkpoint", "backbone", "seed")}
    fixed |= {"run": key, "phase": phase, "lr": point.lr, "weight_decay": point.weight_decay}
    fixed |= {"lambda": point.lam, "layer_decay": point.layer_decay}

    def row(of: dict[str, Any], split: str, metric: str, value: float, n: int) -> dict[str, Any]:
        return fixed | {"epoch": of["epoch"], "split": split, "metric": metric, "value": value, "n": n}

    rows = []
    for of in history:
        rows.append(row(of, "train", "loss", of["train_loss"], of["train_n"]))
        rows.append(row(of, "val", "accuracy", of["val_accuracy"], of["val_n"]))
        rows.append(row(of, "val", "loss", of["val_loss"], of["val_n"]))
    tested = [of for of in history if "test_accuracy" in of]
    if tested:
        best = tested[-1]  # `train` tests in new best epochs only
        rows.append(row(best, "test", "accuracy", best["test_accuracy"], best["test_n"]))
        pairs = list(zip(best["test_class_accuracies"], best["test_class_n"], strict=True))
        seen = [value for value, n in pairs if n]
        rows.append(row(best, "test", "accuracy_class_mean", sum(seen) / len(seen), best["test_n"]))
        for name, ids in (groups or {}).items():
            if of_group := [pairs[k] for k in ids if pairs[k][1]]:
                mean = sum(value for value, _ in of_group) / len(of_group)
                rows.append(row(best, "test", f"accuracy_{name}", mean, sum(n for _, n in of_group)))
        for class_id, (value, n) in enumerate(pairs):
            if n:
                rows.append(row(best, "test", f"class_accuracy/{class_id}", value, n))
    return rows


def _measure(logits: Tensor, labels: np.ndarray) -> tuple[float, float]:
    wanted = torch.from_numpy(np.array(labels)).long()
    accuracy = (logits.argmax(1) == wanted).double().mean().item()
    return accuracy, nn.functional.cross_entropy(logits, wanted).item()


def _test_row(logits: Tensor, labels: np.ndarray) -> dict[str, Any]:
    right = (logits.argmax(1).numpy() == labels).astype(np.float64)
    counts = np.bincount(labels, minlength=logits.shape[1])
    sums = np.bincount(labels, weights=right, minlength=logits.shape[1])
    return {
        "test_accuracy": float(right.mean()),
        "test_n": len(labels),
        "test_class_accuracies": (sums / np.maximum(counts, 1)).tolist(),
        "test_class_n": counts.tolist(),
    }
