"""Answers of a unit's process: what is a failure, a mistake or neither; and one that has lost its GPU ends."""

import dataclasses
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from bob import pipeline
from bob.classifier import trainer
from bob.cluster import data, session
from bob.cluster.resources import Share
from bob.cluster.session import CROWDED, attempt, attempt_together, received
from bob.core import batching
from bob.core.types import Receipt, Unit
from bob.steps import classify, workers
from bob.store import Store

UNIT = Unit(step="classify", target="results/x.parquet", label="x", size=1)
LOST = "CUDA error: unspecified launch failure"


def broken(error: Exception):
    """A worker that raises."""

    def work(unit: Unit, **options: object) -> Receipt:
        raise error

    return work


def run(error: str) -> subprocess.CompletedProcess[str]:
    """A process in which a worker raises this."""
    script = f"""
        import torch
        from bob.cluster.session import attempt
        from bob.core.types import Unit

        def work(unit):
            raise {error}

        print("answer", attempt(work, Unit(step="classify", target="x", label="x", size=1)))
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)


def test_a_process_that_has_lost_its_gpu_ends() -> None:
    """Ray then starts the unit in another, which is not the job's end."""
    ended = run(f'torch.AcceleratorError("{LOST}")')
    assert ended.returncode == 70
    assert not ended.stdout
    assert LOST in ended.stderr


def test_a_process_with_any_other_error_goes_on() -> None:
    ended = run('RuntimeError("mat1 and mat2 shapes cannot be multiplied")')
    assert ended.returncode == 0
    assert "'failure': 'Traceback" in ended.stdout


def test_a_gpu_whose_memory_ran_out_is_not_lost() -> None:
    """CUDA itself says so by the same class, where torch's allocator was not asked."""
    assert batching.is_lost_device(torch.AcceleratorError(LOST))
    assert not batching.is_lost_device(torch.AcceleratorError("CUDA error: out of memory"))
    assert not batching.is_lost_device(torch.OutOfMemoryError("CUDA out of memory"))
    assert not batching.is_lost_device(RuntimeError(LOST))


def test_inline_a_lost_gpu_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workers.WORKERS, "classify", lambda root, device: broken(torch.AcceleratorError(LOST)))
    with pytest.raises(torch.AcceleratorError, match=LOST):
        list(workers.inline("cpu")("classify", [UNIT], Store("/nowhere")))


def test_want_of_memory_beside_others_is_neither_a_mistake_nor_a_failure() -> None:
    answer = attempt(broken(batching.CrowdedOut("out of memory")), UNIT)
    assert answer == {"target": UNIT.target, CROWDED: "out of memory"}
    with pytest.raises(ValueError, match="a mistake"):
        received(attempt(broken(ValueError("a mistake")), UNIT))
    with pytest.raises(RuntimeError, match="a fault"):
        received(attempt(broken(RuntimeError("a fault")), UNIT))


class Actor:
    """An actor of Ray Data in whose processes the GPU is lost, so many times in all."""

    folder, times = "", 0

    def __init__(self, **_: Any) -> None: ...

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"answer": [json.dumps(attempt(self.work, workers.unpacked(text))) for text in batch["unit"]]}

    def work(self, unit: Unit) -> Receipt:
        import uuid

        if len(list(Path(self.folder).iterdir())) < self.times:
            Path(self.folder, uuid.uuid4().hex).touch()
            raise torch.AcceleratorError(LOST)
        return Receipt(target=unit.target, label=unit.label, size=unit.size)


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), CROWDED),
        (ValueError("a mistake"), "mistake"),
        (RuntimeError("a fault"), "failure"),
    ],
)
def test_each_point_of_a_group_has_an_answer(error, key, base, local, monkeypatch, capsys):
    """A group that memory does not hold is halved first, so that each point answers for itself."""

    def fails(*_: object) -> None:
        raise error

    sweep = dataclasses.replace(base.sweep, lrs=(1e-3, 1e-4, 1e-5), weight_decays=(0.0,))
    run = dataclasses.replace(base, method="real_only", sweep=sweep)
    points = classify.sweep(pipeline.split(run, local))
    monkeypatch.setattr(trainer, "run_epoch", fails)
    monkeypatch.setattr(trainer.Trainer, "run_epoch", fails)
    worker = classify.ClassifyWorker(local.root, device="cpu")
    answers = attempt_together(worker, points, report=None, alone=False)
    assert [answer["target"] for answer in answers] == [unit.target for unit in points]
    assert all(key in answer for answer in answers)
    assert ("so 2 at once from here on" in capsys.readouterr().out) == (key == CROWDED)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kept", [False, True])
def test_ray_starts_a_unit_again_where_the_gpu_was_lost(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bounded number of times: a GPU that is broken for good ends the job. In actors and in tasks."""
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(data, "_Actor", Actor)
    monkeypatch.setattr(data, "LOSSES", 2)
    units = [Unit(step="generate", target=f"images/{k}", label="x", size=1) for k in range(3)]
    session.start()
    try:
        slots = dataclasses.replace(session.slots("generate", 3, Share(cpus=1)), kept=kept)
        Actor.folder, Actor.times = str(tmp_path), 2
        receipts = list(data.run("generate", units, Store(str(tmp_path / "out")), slots))
        assert {receipt.target for receipt in receipts} == {unit.target for unit in units}
        Actor.times = 1000
        with pytest.raises(RuntimeError, match="step generate: the process of a unit was lost 3 times"):
            list(data.run("generate", units, Store(str(tmp_path / "out")), slots))
    finally:
        ray.shutdown()
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
