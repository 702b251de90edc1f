"""Step 4: rows of one training -> the choice of a sweep's best point, and the results table (paper sec. 4.1).

A short sweep over `SweepSettings.points`, `select` by validation accuracy, then a long training from the pre-trained
weights (`bob.classifier.trainer.train`); its test accuracy is that of its best epoch on validation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bob.core.settings import Point, Run

__all__ = ["failure", "has_failed", "result_rows", "select"]


def select(histories: Sequence[tuple[Point, Sequence[dict[str, Any]]]]) -> Point:
    """The point with the highest validation accuracy at any of its epochs (paper sec. 4.1).

    Args:
        histories: each point of `SweepSettings.points`, in their order, with the rows that `train` yielded.

    Returns:
        The best point. Ties go to the earlier epoch, then to the earlier point of the grid. A training that has
        failed is never selected, whatever it reached before.

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
    """Whether a training ended early: with a loss that is not finite, or out of memory."""
    return not history or not math.isfinite(history[-1]["val_accuracy"])


def failure(epoch: int) -> dict[str, Any]:
    """The last row of a training that ended early, in this epoch: its losses and its accuracy are NaN."""
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

    Every epoch gives train loss, val accuracy and val loss. The test metrics are those of the best epoch on
    validation: accuracy over images, its mean over classes, its mean over each group of classes, and each class's.

    Args:
        history: the rows that `train` yielded.
        run: gives the coordinates.
        key: the run's key.
        phase: `sweep` or `final`.
        point: the hyper-parameters of this training.
        groups: class ids of each group of a long tail, `budget.groups`.
    """
    coordinates = {
        name: getattr(run, name) for name in ("dataset", "shots", "method", "checkpoint", "backbone", "seed")
    }
    coordinates |= {"run": key, "phase": phase, "lr": point.lr, "weight_decay": point.weight_decay}
    coordinates |= {"lambda": point.lam, "layer_decay": point.layer_decay}

    def row(epoch: int, split: str, metric: str, value: float, n: int) -> dict[str, Any]:
        return coordinates | {"epoch": epoch, "split": split, "metric": metric, "value": value, "n": n}

    rows = []
    for measured in history:
        epoch = measured["epoch"]
        rows.append(row(epoch, "train", "loss", measured["train_loss"], measured["train_n"]))
        rows.append(row(epoch, "val", "accuracy", measured["val_accuracy"], measured["val_n"]))
        rows.append(row(epoch, "val", "loss", measured["val_loss"], measured["val_n"]))
    tested = [measured for measured in history if "test_accuracy" in measured]
    if tested:
        best = tested[-1]  # `train` tests in new best epochs only
        metrics = _test_metrics(best, groups or {})
        rows += [row(best["epoch"], "test", metric, value, n) for metric, value, n in metrics]
    return rows


def _test_metrics(tested: Mapping[str, Any], groups: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, float, int]]:
    """(metric, value, number of images) of a row with test accuracies; classes without images are left out."""
    classes = list(zip(tested["test_class_accuracies"], tested["test_class_n"], strict=True))
    yield "accuracy", tested["test_accuracy"], tested["test_n"]
    present = [accuracy for accuracy, n in classes if n]
    yield "accuracy_class_mean", sum(present) / len(present), tested["test_n"]
    for name, class_ids in groups.items():
        if members := [classes[k] for k in class_ids if classes[k][1]]:
            mean = sum(accuracy for accuracy, _ in members) / len(members)
            yield f"accuracy_{name}", mean, sum(n for _, n in members)
    for class_id, (accuracy, n) in enumerate(classes):
        if n:
            yield f"class_accuracy/{class_id}", accuracy, n
