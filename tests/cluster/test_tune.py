"""Sweeps on a real local Ray: early stopping within a run, lost processes, want of memory, order of trials."""

import contextlib
import dataclasses
import math
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bob import cluster, pipeline
from bob.cluster import session
from bob.core.settings import SweepSettings
from bob.core.types import Unit
from bob.steps import classify
from bob.steps.classify import ClassifyWorker
from bob.store import Store
from tests.cluster.test_watch import events


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    import ray  # late: conftest has set its environment by now

    yield
    ray.shutdown()


def epochs(store: Store, unit: Unit) -> list[int]:
    rows = store.read_table(unit.target).to_pylist()
    return sorted(row["epoch"] for row in rows if (row["split"], row["metric"]) == ("val", "accuracy"))


@pytest.mark.timeout(400)
def test_asha_stops_some_and_compares_within_a_run_only(on_ray, base, local):
    """What is stopped has a table of the epochs it had, and the final training can choose among all."""
    many = SweepSettings(
        lrs=(1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5),
        weight_decays=(0.0,),
        sweep_epochs=6,
        final_epochs=1,
        warmup_epochs=0.0,
        batch=12,
        search="asha",
    )
    runs = [dataclasses.replace(base, method="real_only", sweep=many, seed=seed) for seed in (0, 1)]
    cells = [pipeline.split(run, local) for run in runs]
    swept = [classify.sweep(cell) for cell in cells]
    receipts = list(cluster.execute("classify", [unit for points in swept for unit in points], local))
    assert len(receipts) == 12
    lengths = [[len(epochs(local, unit)) for unit in points] for points in swept]
    for points in swept:
        for unit in points:
            assert epochs(local, unit) == list(range(1, len(epochs(local, unit)) + 1))
    assert all(max(of) == 6 for of in lengths)  # each run has a best one, whatever the other run reaches
    assert min(map(min, lengths)) < 6
    stopped = [receipt.note for receipt in receipts if receipt.note.startswith("stopped after epoch")]
    assert len(stopped) == sum(length < 6 for of in lengths for length in of)
    finals = [classify.final(cell, points) for cell, points in zip(cells, swept, strict=True)]
    assert len(list(cluster.execute("classify", finals, local))) == 2


def in_groups(monkeypatch, points: int) -> None:
    """Makes a process train so many points of a sweep together, as it does on a GPU."""
    rule = session.fit_trainings

    def forced(*given: Any) -> Any:
        found = rule(*given)
        return dataclasses.replace(found, points=dict.fromkeys(found.points, points))

    monkeypatch.setattr(session, "fit_trainings", forced)


@pytest.mark.timeout(400)
def test_points_that_are_one_trial_have_the_tables_of_each_by_itself(on_ray, base, local, monkeypatch):
    """And the final training follows; curves have each point's epochs."""
    sweep = SweepSettings(
        lrs=(1e-3, 1e30, 3e-4, 1e-4, 3e-3),
        weight_decays=(0.0,),
        sweep_epochs=2,
        final_epochs=1,
        warmup_epochs=0.0,
        batch=12,
    )
    cell = pipeline.split(dataclasses.replace(base, method="real_only", sweep=sweep), local)
    points, alone = classify.sweep(cell), dataclasses.replace(local, root=f"{local.root}-2")
    units = [*points, classify.final(cell, points)]
    in_groups(monkeypatch, 3)
    receipts = list(cluster.execute("classify", units, local, log="tensorboard"))
    assert sorted(receipt.target for receipt in receipts) == sorted(unit.target for unit in units)
    assert receipts[-1].target == units[-1].target
    notes = {receipt.target: receipt.note for receipt in receipts}
    assert "so it is not selected" in notes[points[1].target]
    pipeline.split(cell.run, alone)
    worker = ClassifyWorker(alone.root, device="cpu")
    for unit in units:
        worker(unit)
        ours, theirs = (store.read_table(unit.target).to_pylist() for store in (local, alone))
        assert str(ours) == str(theirs)  # NaN included
        losses = [row for row in ours if (row["split"], row["metric"]) == ("val", "loss")]
        kept = {row["epoch"]: row["value"] for row in losses if math.isfinite(row["value"])}
        drawn = events(Path(local.root, "logs/tensorboard", unit.target.removesuffix(".parquet")))
        assert drawn.get("ray/tune/val_loss", {}) == pytest.approx(kept)
    processes = [local.manifest(unit.target)["process"] for unit in points]
    assert processes[0] == processes[1] == processes[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("together", [1, 2])
def test_a_trial_whose_process_is_killed_comes_again(on_ray, base, local, monkeypatch, together):
    """By the kernel, as for want of memory: the numbers are those of a sweep that was left alone."""
    import psutil

    in_groups(monkeypatch, together)

    sweep = SweepSettings(
        lrs=(1e-3, 3e-3), weight_decays=(0.0,), sweep_epochs=40, final_epochs=1, warmup_epochs=0.0, batch=6
    )
    cell = pipeline.split(dataclasses.replace(base, method="real_only", sweep=sweep), local)
    points, killed, alone = (
        classify.sweep(cell),
        threading.Event(),
        dataclasses.replace(local, root=f"{local.root}-2"),
    )

    def kill() -> None:
        while not killed.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "ImplicitFunc" in process.name() + "".join(process.cmdline()) and process.cpu_times().user > 4:
                        process.kill()
                        killed.set()
                        return

    killer = threading.Thread(target=kill)
    killer.start()
    receipts = list(cluster.execute("classify", points, local))
    assert killed.is_set()
    killer.join()
    assert len(receipts) == 2
    pipeline.split(cell.run, alone)
    worker = ClassifyWorker(alone.root, device="cpu")
    for unit in points:
        worker(unit)
        assert alone.read_table(unit.target).equals(local.read_table(unit.target))


def crowded(folder: Path) -> Callable[..., None]:
    """A trial function whose trainings run out of memory: with lr 1e-3 never, with 1e-5 always, others beside others.

    A training of the first pass waits a while for a neighbour, so that there is one.
    """

    def classify(config: dict[str, Any], *, trainings: Any, **options: Any) -> None:
        import os
        import time

        import torch

        from bob.classifier.trainer import Trainer
        from bob.cluster import tune

        original = Trainer.run_epoch

        def run_epoch(self: Trainer, epoch: int) -> tuple[float, int]:
            mine, end = folder / str(os.getpid()), time.monotonic() + 3
            mine.touch()
            try:
                while not trainings.alone and len(list(folder.iterdir())) < 2 and time.monotonic() < end:
                    time.sleep(0.02)
                lr, others = self.training.point.lr, len(list(folder.iterdir())) - 1
                if lr == 1e-5 or (others and lr != 1e-3):
                    time.sleep(0.2)  # until the neighbours have counted this one
                    raise torch.OutOfMemoryError(f"CUDA out of memory beside {others} others")
                return original(self, epoch)
            finally:
                mine.unlink()

        Trainer.run_epoch = run_epoch
        try:
            tune.classify(config, trainings=trainings, **options)
        finally:
            Trainer.run_epoch = original

    return classify


@pytest.mark.timeout(400)
def test_a_point_that_runs_out_of_memory_beside_others_is_trained_alone(on_ray, base, local, monkeypatch, tmp_path):
    """So the hyper-parameters that are chosen do not depend on the neighbours; alone it has to fit."""
    from ray import cloudpickle

    from bob.cluster import tune

    sweep = SweepSettings(
        lrs=(1e-3, 3e-4, 1e-4, 1e-5), weight_decays=(0.0,), sweep_epochs=2, final_epochs=1, warmup_epochs=0.0, batch=12
    )
    cell = pipeline.split(dataclasses.replace(base, method="real_only", sweep=sweep), local)
    points = classify.sweep(cell)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "present").mkdir()
    monkeypatch.setattr(tune, "classify", crowded(tmp_path / "present"))
    receipts = {receipt.target: receipt for receipt in cluster.execute("classify", points, local)}
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert len(receipts) == 4
    *good, never = (receipts[unit.target].note for unit in points)
    assert all(note.startswith("best validation accuracy") for note in good)
    assert "alone, after memory ran out beside others" not in good[0]
    assert "alone, after memory ran out beside others" in "".join(good[1:])
    assert "broke off in epoch 1: out of memory (CUDA out of memory beside 0 others)" in never
    rows = local.read_table(points[3].target).to_pylist()
    assert [math.isnan(row["value"]) for row in rows if (row["split"], row["metric"]) == ("val", "accuracy")] == [True]
    inline = dataclasses.replace(local, root=f"{local.root}-2")
    pipeline.split(cell.run, inline)
    worker = ClassifyWorker(inline.root, device="cpu")
    for unit in points[:3]:
        worker(unit)
        assert inline.read_table(unit.target).equals(local.read_table(unit.target))


@pytest.mark.timeout(400)
def test_a_final_training_starts_as_soon_as_its_own_sweep_is_done(on_ray, base, local):
    """While another run still sweeps; all of them in the processes that the first trials got."""
    short = SweepSettings(
        lrs=(1e-3, 3e-4), weight_decays=(0.0,), sweep_epochs=1, final_epochs=1, warmup_epochs=0.0, batch=12
    )
    long = dataclasses.replace(short, lrs=(1e-3, 3e-4, 1e-4, 3e-5, 1e-5), sweep_epochs=60)
    runs = [dataclasses.replace(base, method="real_only", sweep=sweep) for sweep in (short, long)]
    cells = [pipeline.split(run, local) for run in runs]
    swept = [classify.sweep(cell) for cell in cells]
    finals = [classify.final(cell, points) for cell, points in zip(cells, swept, strict=True)]
    units = [*swept[1], *swept[0], *finals]
    order = [receipt.target for receipt in cluster.execute("classify", units, local)]
    assert sorted(order) == sorted(unit.target for unit in units)
    for points, final in zip(swept, finals, strict=True):
        assert max(order.index(unit.target) for unit in points) < order.index(final.target)


def test_longest_trainings_come_first_and_those_of_a_run_together(base, local):
    """By pictures and epochs times what a picture takes: 24 settings are no hurdle race."""
    from bob.cluster.feed import longest_first

    runs = [dataclasses.replace(base, method="real_only", backbone=name) for name in ("resnet_mini", "mae_vit_b16")]
    runs.append(dataclasses.replace(runs[0], shots=3, draw=dataclasses.replace(base.draw, per_class=40)))
    swept = [unit for run in runs for unit in classify.sweep(pipeline.split(run, local))]
    ordered = sorted(swept, key=longest_first)
    assert [unit.group for unit in ordered] == [unit.group for unit in swept[2:4] + swept[4:] + swept[:2]]
