"""A fine-tune by two processes of Ray Train: the adapter of one process, resumed by one; mistakes in one sentence."""

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bob import cluster, pipeline, store
from bob.cluster.resources import FinetuneShare, Resources
from bob.core.types import Unit
from bob.steps import finetune, workers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.timeout(400)]
TWO = Resources(finetune=FinetuneShare(workers=2))


@pytest.fixture(scope="module")
def unit(base, tmp_path_factory) -> Unit:
    """A fine-tune of several steps with a last batch of one pair, for one of two processes nothing to do."""
    settings = dataclasses.replace(base.finetune, epochs=3, batch=5, checkpoint_every=2)
    run = dataclasses.replace(base, finetune=settings)
    made = finetune.unit(pipeline.split(run, store.Store(str(tmp_path_factory.mktemp("split")))))
    assert made is not None
    return made


def adapter(artefacts: store.Store, unit: Unit) -> dict:
    folder = Path(artefacts.root, unit.target).parent
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "pytorch_lora_weights.safetensors"]
    return load_file(folder / "pytorch_lora_weights.safetensors")


def test_two_processes_make_the_adapter_of_one_and_say_what_is_wrong(unit, tmp_path, monkeypatch):
    import ray

    one, two = store.Store(str(tmp_path / "one")), store.Store(str(tmp_path / "two"))
    assert len(list(workers.inline("cpu")("finetune", [unit], one))) == 1
    wanted = adapter(one, unit)
    try:
        (receipt,) = cluster.execute("finetune", [unit], two, resources=TWO)
        assert (receipt.target, receipt.size) == (unit.target, unit.size)
        made = adapter(two, unit)
        assert made.keys() == wanted.keys()
        worst = max(float((made[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)
        assert 0 < worst < 1e-5

        lost = dataclasses.replace(unit.work, checkpoint=f"path:{tmp_path}/nothing")
        broken = dataclasses.replace(unit, target="adapters/x-1/manifest.json", work=lost)
        with pytest.raises(ValueError, match=r"is no Stable Diffusion checkpoint: it has no model_index\.json"):
            list(cluster.execute("finetune", [broken], two, resources=TWO))
        (receipt,) = cluster.execute("finetune", [dataclasses.replace(broken, work=unit.work)], two, resources=TWO)
        assert receipt.times
    finally:
        ray.shutdown()
