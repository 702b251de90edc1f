"""Runs on a real local Ray: the same results as a for-loop, users' mistakes in one sentence, nothing drawn twice."""

import contextlib
import dataclasses
import time
from pathlib import Path

import pytest

from bob import cluster, pipeline
from bob.cluster import data
from bob.commands import console
from bob.core.settings import Run
from bob.core.types import Tuning, Unit
from bob.diffusion import checkpoints
from bob.paper import experiments
from bob.pipeline import walk
from bob.steps import workers
from bob.steps.defaults import defaults
from bob.steps.finetune import FinetuneWork
from bob.steps.generate import GenerateWork
from bob.store import Store
from bob.store.images import read_images

WEIGHTS = Path(checkpoints.__file__).parents[1] / "skyworld/weights"


def smoke() -> list[Run]:
    return [dataclasses.replace(run, checkpoint="path:sd") for run in experiments.load("smoke", (100,))]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory):
    """The smoke experiment, inline and on Ray: name -> (store, outcomes). Paths are relative, as a user writes them.

    Inline torch starts with three threads, as on a machine of three cores.
    """
    import ray  # late: conftest has set its environment by now
    import torch

    done, here, before = {}, tmp_path_factory.mktemp("here"), torch.get_num_threads()
    (here / "sd").symlink_to(WEIGHTS / "sd")
    torch.set_num_threads(3)
    try:
        with contextlib.chdir(here):
            for name, executor in (("inline", workers.inline("cpu")), ("ray", cluster.execute)):
                store = Store(name)
                outcomes = pipeline.execute(smoke(), artefacts=store, executor=executor, report=console.report)
                done[name] = store, outcomes
            yield done
    finally:
        ray.shutdown()
        torch.set_num_threads(before)


@pytest.mark.timeout(400)
def test_ray_gives_the_numbers_of_a_for_loop(both):
    tables = {
        name: [store.read_table(outcome.final).to_pylist() for outcome in outcomes]
        for name, (store, outcomes) in both.items()
    }
    assert tables["ray"] == tables["inline"]


@pytest.mark.timeout(400)
def test_ray_draws_the_images_of_a_for_loop(both):
    for inline, ray in zip(both["inline"][1], both["ray"][1], strict=True):
        assert inline.images == ray.images
        if inline.images:
            drawn = [read_images(both[name][0], inline.images)["sha1"].to_pylist() for name in both]
            assert drawn[0] == drawn[1]
            assert len(set(drawn[0])) == len(drawn[0])


@pytest.mark.timeout(400)
def test_the_same_command_again_does_nothing(both):
    store, _ = both["ray"]

    def refuse(step, units, artefacts):
        raise AssertionError(f"{step} was done again: {[unit.label for unit in units]}")

    pipeline.execute(smoke(), artefacts=store, executor=refuse, report=console.report)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("step", ["generate", "finetune"])
def test_a_mistake_comes_back_in_words(both, step, tmp_path: Path):
    store, outcomes = both["ray"]
    known = {"dataset": "skyworld", "checkpoint": f"path:{tmp_path}/nothing"}
    if step == "generate":
        requests, split = f"{outcomes[-1].images}/requests.parquet", outcomes[-1].split
        work = GenerateWork(**known, requests=requests, start=0, adapter="", batch=1, split=split)
    else:
        settings = outcomes[-1].run.finetune
        work = FinetuneWork(**known, settings=settings, seed=0, shots=(), pairs=(), tuning=Tuning(), inputs=[])
    unit = Unit(step=step, target=f"{step}/x/y", label="a mistake", size=1, work=work)
    with pytest.raises(ValueError, match=r"is no Stable Diffusion checkpoint: it has no model_index\.json"):
        list(cluster.execute(step, [unit], store))


@pytest.mark.timeout(400)
def test_a_block_of_several_units_gives_the_images_of_a_for_loop_and_a_receipt_as_each_is_done(
    both, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(data, "_SHARE", 4)
    run = defaults(
        checkpoint="simulated:1", backbone="resnet_mini", captioner="qwen_vl:skyworld", method="real_guidance"
    )
    run = dataclasses.replace(run, draw=dataclasses.replace(run.draw, per_class=3, unit=2))
    sums, arrived = [], {}
    for name, executor in (("inline", workers.inline("cpu")), ("ray", cluster.execute)):
        store = Store(str(tmp_path / name))
        cell = pipeline.split(run, store)
        todo = list(walk.generations(cell, store))
        arrived = {receipt.target: time.time() for receipt in executor("generate", todo, store)}
        assert arrived.keys() == {unit.target for unit in todo}
        sums.append(read_images(store, cell.images)["sha1"].to_pylist())
    assert sums[0] == sums[1]
    assert len(next(data.blocks(todo))) == 3
    third = Path(store.root, todo[2].target).stat().st_mtime  # two seconds after the first of its block
    assert arrived[todo[0].target] < third
