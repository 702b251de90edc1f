"""Sweeps on a real local Ray: early stopping within a run, lost processes, order of trials."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator

import pytest

from bob import cluster, pipeline
from bob.core.settings import SweepSettings
from bob.core.types import Unit
from bob.steps import classify
from bob.steps.classify import ClassifyWorker
from bob.store import Store


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


@pytest.mark.timeout(400)
def test_a_trial_whose_process_is_killed_comes_again(on_ray, base, local):
    """By the kernel, as for want of memory: the numbers are those of a sweep that was left alone."""
    import psutil

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


def test_longest_trainings_come_first_and_those_of_a_run_together(base, local):
    """By pictures and epochs times what a picture takes: 24 settings are no hurdle race."""
    from bob.cluster.tune import longest_first

    runs = [dataclasses.replace(base, method="real_only", backbone=name) for name in ("resnet_mini", "mae_vit_b16")]
    runs.append(dataclasses.replace(runs[0], shots=3, draw=dataclasses.replace(base.draw, per_class=40)))
    swept = [unit for run in runs for unit in classify.sweep(pipeline.split(run, local))]
    ordered = longest_first(swept)
    assert [unit.group for unit in ordered] == [unit.group for unit in swept[2:4] + swept[4:] + swept[:2]]
