"""Points of a sweep trained in lockstep: the tables of each by itself, whatever breaks off."""

import dataclasses

import pytest
import torch

from bob import pipeline
from bob.classifier import trainer
from bob.core import batching
from bob.core.settings import SweepSettings
from bob.steps import classify
from bob.steps.classify import ClassifyWorker
from bob.steps.sweep_group import groups, train_group

SWEEP = SweepSettings(
    lrs=(1e-3, 1e30, 1e-4, 3e-3), weight_decays=(0.0,), sweep_epochs=3, final_epochs=2, warmup_epochs=0.0, batch=12
)


@pytest.fixture
def points(base, local):
    """Units of a sweep on real pictures whose second point diverges."""
    run = dataclasses.replace(base, method="real_only", sweep=SWEEP)
    return classify.sweep(pipeline.split(run, local))


@pytest.fixture
def wanted(points, local):
    """The tables of the points one after another."""
    worker = ClassifyWorker(local.root, device="cpu")
    for unit in points:
        worker(unit)
    tables = [local.read_table(unit.target) for unit in points]
    for unit in points:
        local.delete(unit.target)
    return tables


def together(local, units, **options):
    worker = ClassifyWorker(local.root, device="cpu", save_every=0.0)
    return train_group(worker, units, one=lambda unit: worker(unit, **options), done=lambda unit, receipt: receipt)


def same(local, units, wanted) -> None:
    for unit, table in zip(units, wanted, strict=True):
        made = local.read_table(unit.target)
        for ours, theirs in zip(made.to_pylist(), table.to_pylist(), strict=True):
            assert str(ours) == str(theirs)  # NaN included
        assert not local.exists(f"{unit.target}.state.pt")


def test_a_group_gives_the_tables_of_each_by_itself(points, wanted, local):
    """Also beside one that diverges."""
    receipts = together(local, points)
    assert [receipt.target for receipt in receipts] == [unit.target for unit in points]
    assert "so it is not selected" in receipts[1].note
    same(local, points, wanted)


def test_a_killed_group_resumes_even_where_its_states_are_of_different_epochs(points, wanted, local, monkeypatch):
    worker, left = ClassifyWorker(local.root, device="cpu", save_every=0.0), [4]
    write = type(local).write

    def killed(self, path, content):
        if path.endswith(".state.pt"):
            left[0] -= 1
            if not left[0]:  # the second state of the first two that go on is written, that of the third is not
                raise KeyboardInterrupt
        return write(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(type(local), "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train_group(worker, points, one=worker, done=lambda unit, receipt: receipt)
    epochs: list[tuple[int, int]] = []
    original = trainer.run_epoch
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_epoch", lambda all, epoch: epochs.append((epoch, len(all))) or original(all, epoch))
        together(local, points)
    assert (3, 3) in epochs
    same(local, points, wanted)


def test_a_group_that_memory_does_not_hold_goes_on_in_halves(points, wanted, local, monkeypatch, capsys):
    original, sizes = trainer.run_epoch, []

    def full(trainers, epoch):
        sizes.append(len(trainers))
        if len(trainers) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(trainers, epoch)

    monkeypatch.setattr(trainer, "run_epoch", full)
    together(local, points)
    assert sizes[0] == 4
    assert max(sizes[1:]) == 2
    assert "4 trainings ran out of memory together, so 2 at once" in capsys.readouterr().out
    same(local, points, wanted)


def test_one_that_is_left_of_a_group_is_crowded_out_beside_others(points, local, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(trainer, "run_epoch", full)
    monkeypatch.setattr(trainer.Trainer, "run_epoch", full)
    with pytest.raises(batching.CrowdedOut):
        together(local, points[:2], alone=False)
    assert not any(local.exists(unit.target) for unit in points)


def test_groups_are_of_one_run_and_finals_and_asha_stay_alone(base, local):
    runs = [dataclasses.replace(base, method="real_only", sweep=SWEEP, seed=seed) for seed in (0, 1)]
    halved = dataclasses.replace(runs[0], sweep=dataclasses.replace(SWEEP, search="asha"))
    cells = [pipeline.split(run, local) for run in (*runs, halved)]
    swept = [classify.sweep(cell) for cell in cells]
    final = classify.final(cells[0], swept[0])
    units = [*swept[0], *swept[1], *swept[2], final]
    made = groups(units, size=lambda unit: 4 if unit.group == swept[1][0].group else 3)
    assert [len(group) for group in made] == [2, 2, 4, 1, 1, 1, 1, 1]  # not 3 and 1, one of which waits for the other
    assert [unit for group in made for unit in group] == units
