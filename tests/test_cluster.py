"""A real local Ray gives what a for-loop gives, says a user's mistake in words, and draws nothing twice."""

import contextlib
import dataclasses
from pathlib import Path

import pytest

from bob import cluster, experiments, pipeline, pixels, progress, workers
from bob.diffusion import checkpoints
from bob.settings import Run
from bob.store import Store
from bob.types import Tuning, Unit

WEIGHTS = Path(checkpoints.__file__).parents[1] / "skyworld/weights"


def smoke() -> list[Run]:
    return [dataclasses.replace(run, checkpoint="path:sd") for run in experiments.load("smoke", (100,))]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory):
    """The smoke experiment, inline and on Ray: name -> (store, outcomes). Paths are relative, as a user writes them."""
    import ray  # late: conftest has set its environment by now

    done, here = {}, tmp_path_factory.mktemp("here")
    (here / "sd").symlink_to(WEIGHTS / "sd")
    try:
        with contextlib.chdir(here):
            for name, executor in (("inline", workers.inline("cpu")), ("ray", cluster.execute)):
                store = Store(name)
                outcomes = pipeline.execute(smoke(), artefacts=store, executor=executor, report=progress.report)
                done[name] = store, outcomes
            yield done
    finally:
        ray.shutdown()


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
            drawn = [pixels.read_images(both[name][0], inline.images)["sha1"].to_pylist() for name in both]
            assert drawn[0] == drawn[1]
            assert len(set(drawn[0])) == len(drawn[0])


@pytest.mark.timeout(400)
def test_the_same_command_again_does_nothing(both):
    store, _ = both["ray"]

    def refuse(step, units, artefacts):
        raise AssertionError(f"{step} was done again: {[unit.label for unit in units]}")

    pipeline.execute(smoke(), artefacts=store, executor=refuse, report=progress.report)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("step", ["generate", "finetune"])
def test_a_mistake_comes_back_in_words(both, step, tmp_path: Path):
    store, outcomes = both["ray"]
    known = {"requests": f"{outcomes[-1].images}/requests.parquet", "start": 0, "batch": 1, "adapter": ""}
    known |= {"dataset": "skyworld", "split": outcomes[-1].split}
    settings = dataclasses.asdict(outcomes[-1].run.finetune)
    train = {"dataset": "skyworld", "settings": settings, "seed": 0, "shots": [], "pairs": []}
    train["tuning"] = dataclasses.asdict(Tuning())
    work = {**(known if step == "generate" else train), "checkpoint": f"path:{tmp_path}/nothing"}
    unit = Unit(step=step, target=f"{step}/x/y", label="a mistake", size=1, work=work)
    with pytest.raises(ValueError, match=r"is no Stable Diffusion checkpoint: it has no model_index\.json"):
        list(cluster.execute(step, [unit], store))
