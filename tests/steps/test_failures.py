"""Trainings that break off: for want of memory beside others, or as a failure of their configuration, never chosen."""

import dataclasses
import math

import pytest
import torch

from bob import pipeline
from bob.classifier import trainer
from bob.classifier.results import failure, select
from bob.core import batching
from bob.core.settings import SweepSettings
from bob.steps import classify
from bob.steps.classify import ClassifyWorker

SWEEP = SweepSettings(
    lrs=(1e-3, 1e30, 1e-4), weight_decays=(0.0,), sweep_epochs=2, final_epochs=2, warmup_epochs=0.0, batch=12
)


@pytest.fixture
def swept(base, local):
    """Units of a sweep on real pictures whose second point diverges, and their final unit."""
    run = dataclasses.replace(base, method="real_only", sweep=SWEEP)
    cell = pipeline.split(run, local)
    points = classify.sweep(cell)
    return points, classify.final(cell, points)


def history(store, unit) -> dict[int, float]:
    """Epoch -> validation accuracy."""
    rows = store.read_table(unit.target).to_pylist()
    return {row["epoch"]: row["value"] for row in rows if (row["split"], row["metric"]) == ("val", "accuracy")}


def run_out(monkeypatch, *, times: int, epoch: int = 1) -> None:
    """The next so many trainings run out of memory in this epoch."""
    original, left = trainer.Trainer.run_epoch, [times]

    def full(self, number):
        if number == epoch and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(self, number)

    monkeypatch.setattr(trainer.Trainer, "run_epoch", full)


def test_a_point_that_diverges_is_reported_and_not_chosen(swept, local):
    points, final = swept
    worker = ClassifyWorker(local.root, device="cpu")
    receipts = [worker(unit) for unit in points]
    assert "broke off in epoch" in receipts[1].note
    assert "so it is not selected" in receipts[1].note
    assert all("best validation accuracy" in receipts[k].note for k in (0, 2))
    assert math.isnan(list(history(local, points[1]).values())[-1])
    assert worker._best(final.work).lr in (1e-3, 1e-4)


def test_a_point_that_was_best_before_it_broke_off_is_not_chosen():
    first, second, _ = SWEEP.points(has_synthetic=False)
    rows = [{"epoch": 1, "val_accuracy": 0.9}, failure(2)]
    good = [{"epoch": 1, "val_accuracy": 0.2}, {"epoch": 2, "val_accuracy": 0.3}]
    assert select([(first, rows), (second, good)]) is second
    with pytest.raises(ValueError, match="all 1 trainings of the sweep ended in a loss that is not finite, or ran out"):
        select([(first, rows)])


def test_what_ran_out_of_memory_beside_others_is_no_failure(swept, local, monkeypatch):
    """It is the driver's to train it alone; nothing is committed before."""
    points, _ = swept
    worker = ClassifyWorker(local.root, device="cpu", save_every=0.0)
    worker(points[0])
    wanted = local.read_table(points[0].target)
    local.delete(points[0].target)
    run_out(monkeypatch, times=1, epoch=2)
    with pytest.raises(batching.CrowdedOut, match=r"out of memory \(CUDA out of memory"):
        worker(points[0], alone=False)
    assert not local.exists(points[0].target)
    epochs: list[int] = []
    monkeypatch.setattr(trainer.Trainer, "run_epoch", counted(epochs, trainer.Trainer.run_epoch))
    receipt = worker(points[0])
    assert epochs == [2]  # from the saved state
    assert local.read_table(points[0].target).equals(wanted)
    assert receipt.note.startswith("best validation accuracy")


def counted(epochs: list[int], original):
    def run_epoch(self, number):
        epochs.append(number)
        return original(self, number)

    return run_epoch


@pytest.mark.parametrize("alone", [True, False])
def test_an_evaluation_that_does_not_fit_is_a_want_of_memory_too(swept, local, monkeypatch, alone):
    """Even one picture at a time: its message is that of a mistake, which would end the job."""

    def full(self, images):
        if torch.is_inference_mode_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(self, images)

    original = trainer.Trainer._forward
    monkeypatch.setattr(trainer.Trainer, "_forward", full)
    worker = ClassifyWorker(local.root, device="cpu")
    if alone:
        assert "so it is not selected" in worker(swept[0][0]).note
    else:
        with pytest.raises(batching.CrowdedOut, match="evaluating runs out of memory even one at a time"):
            worker(swept[0][0], alone=False)


def test_a_point_that_does_not_fit_alone_is_reported_and_not_chosen(swept, local, monkeypatch):
    points, final = swept
    worker = ClassifyWorker(local.root, device="cpu")
    run_out(monkeypatch, times=1, epoch=2)
    receipt = worker(points[0])
    assert "broke off in epoch 2: out of memory (CUDA out of memory." in receipt.note
    assert math.isnan(history(local, points[0])[2])
    for unit in points[1:]:
        worker(unit)
    assert worker._best(final.work).lr == 1e-4


def test_a_final_training_that_never_fits_says_so(swept, local, monkeypatch):
    points, final = swept
    worker = ClassifyWorker(local.root, device="cpu")
    for unit in points:
        worker(unit)
    run_out(monkeypatch, times=1, epoch=2)
    with pytest.raises(ValueError, match=r"final broke off in epoch 2: out of memory \(CUDA"):
        worker(final)
    assert not local.exists(final.target)
    assert worker(final).note.startswith("best validation accuracy")  # the next time it fits


def test_any_other_error_is_raised(swept, local, monkeypatch):
    def broken(self, number):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(trainer.Trainer, "run_epoch", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        ClassifyWorker(local.root, device="cpu")(swept[0][0])
    assert not local.exists(swept[0][0].target)


def test_validation_that_is_not_a_number_is_no_accuracy(swept, local, monkeypatch):
    """The last step of an epoch broke the weights: its loss was taken before."""
    points, _ = swept
    monkeypatch.setattr(trainer.Trainer, "logits", lambda self, pixels: torch.full((len(pixels), 3), math.nan))
    receipt = ClassifyWorker(local.root, device="cpu")(points[0])
    assert "broke off in epoch 1: its loss is not finite" in receipt.note
    assert [math.isnan(value) for value in history(local, points[0]).values()] == [True]
