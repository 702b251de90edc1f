"""Every method on every skyworld setting, from shots to a table, at tiny size; new methods are covered with no edit."""

import dataclasses
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bob import cli, methods, pipeline
from bob.classifier.data import synthetic_arrays
from bob.commands import methods as listed
from bob.commands import verify
from bob.core import registry
from bob.core.settings import Run
from bob.core.types import Outcome
from bob.paper import tabulate
from bob.pipeline import walk
from bob.steps import finetune, workers
from bob.store import Store, schema
from bob.store.images import read_images
from tests.tiny import DRAW, FINETUNE, SWEEP

SETTINGS = {"skyworld": 2, "skyworld_lt:100": 0}
"""Data set -> shots per class, where they are the user's to choose."""

PLUGIN = '''"""Draws each shot again, as anybody's method might."""

from dataclasses import dataclass

from bob.methods import DrawSettings, Method, TrainingSet, TrainPair, of_class


@dataclass(frozen=True, kw_only=True)
class Again(Method):
    paper = "arXiv:0000.00000"
    summary = ("nothing", "each shot again")
    guidance = 1.5

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        return []

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int):
        for class_id, shots in enumerate(of_class(training)):
            for index in range(self.asked(training, class_id)):
                source = shots[index % len(shots)].image_id
                yield self.request(
                    training, class_id=class_id, index=index, prompt="a thing", draw=draw, seed=seed,
                    kind="img2img", source_ids=(source,), strength=0.5,
                )


method = Again()
'''


@pytest.fixture(autouse=True)
def clip(untrained_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOB_MODELS", str(untrained_clip))


def tiny(method: str, dataset: str, checkpoint: Path) -> Run:
    return Run(
        dataset=dataset,
        method=method,
        shots=SETTINGS[dataset],
        val=1,
        checkpoint=f"path:{checkpoint}",
        captioner="qwen_vl:skyworld",
        backbone="resnet_mini",
        finetune=dataclasses.replace(FINETUNE, batch=20, epochs=1),
        draw=dataclasses.replace(DRAW, per_class=2, steps=4, guidance=3.0, batch=20, unit=30),
        sweep=dataclasses.replace(SWEEP, lrs=(1e-3,), final_epochs=1, batch=60),
    )


def execute(run: Run, artefacts: Store, **options: object) -> Outcome:
    told = lambda step, todo, done, receipts: receipts  # noqa: E731
    (outcome,) = pipeline.execute([run], artefacts=artefacts, executor=workers.inline("cpu"), report=told, **options)
    return outcome


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Where all methods leave what they make, so that adapters are made once."""
    return Store(str(tmp_path_factory.mktemp("baselines")))


@pytest.mark.parametrize("dataset", SETTINGS)
@pytest.mark.parametrize("name", registry.names("method"))
def test_every_method_comes_to_a_table(name, dataset, untrained_sd, shared):
    run = tiny(name, dataset, untrained_sd)
    outcome = execute(run, shared)
    table = tabulate.write([outcome], shared, name=f"{name} {dataset[-3:]}").to_pylist()
    version = f"path:{untrained_sd}" if methods.load(name).draws else ""
    assert {row["row"] for row in table} == {f"resnet_mini / {methods.title(name)} / {version}"}
    assert all(row["ours"] is not None for row in table if row["column"].endswith(("shot", "all")))
    cell = pipeline.split(run, shared)
    if not outcome.images:
        return
    images = read_images(shared, outcome.images)
    counts = Counter(images["class_id"].to_pylist())
    assert [counts[k] for k in range(10)] == list(cell.training.budget.drawn)
    assert len(set(images["sha1"].to_pylist())) == len(images)
    ids = {shot.image_id for shot in cell.training.shots}
    assert all(set(sources) <= ids for sources in images["source_ids"].to_pylist())
    assert not [name for name in shared.names(outcome.images) if "rejected" in name]


def test_nothing_that_they_left_is_damaged_or_foreign(shared):
    """After all methods above."""
    verdict = verify.verify(shared)
    assert (verdict.problems, verdict.foreign, verdict.passing) == ((), (), ())


def test_four_baselines_share_one_adapter(untrained_sd, tmp_path):
    drawn = [tiny(name, "skyworld", untrained_sd) for name in ("diff_gen", "diff_aug", "diff_mix", "diff_ii")]
    cells = [pipeline.split(run, Store(str(tmp_path))) for run in drawn]
    assert len({unit.target for cell in cells if (unit := finetune.unit(cell))}) == 1


@pytest.mark.parametrize("name", ["diff_ii", "real_guidance", "da_fusion"])
def test_a_lost_shard_of_any_kind_of_request_is_drawn_again_the_same(name, untrained_sd, shared):
    run = tiny(name, "skyworld", untrained_sd)
    outcome = execute(run, shared)
    table = read_images(shared, outcome.images)
    assert set(table["kind"].to_pylist()) == {"circle" if name == "diff_ii" else "img2img"}
    parts = [part for part in shared.names(outcome.images) if part.startswith("part-")]
    shared.delete(f"{outcome.images}/{parts[-1]}")
    assert execute(run, shared) == outcome
    again = read_images(shared, outcome.images)
    assert again["request_id"].equals(table["request_id"])
    assert again["sha1"].equals(table["sha1"])


def test_a_lost_shard_is_drawn_and_judged_again_the_same(untrained_sd, shared):
    run = tiny("diff_mix", "skyworld", untrained_sd)
    outcome = execute(run, shared)
    before = read_images(shared, outcome.images)["sha1"].to_pylist()
    scores = shared.read_table(f"{outcome.images}/scores-00000.parquet")
    for lost in ("part-00000.parquet", "scores-00000.parquet"):
        shared.delete(f"{outcome.images}/{lost}")
    assert execute(run, shared) == outcome
    assert read_images(shared, outcome.images)["sha1"].to_pylist() == before
    assert shared.read_table(f"{outcome.images}/scores-00000.parquet").equals(scores)
    shared.delete(f"{outcome.images}/scores-00000.parquet")
    with pytest.raises(ValueError, match=r"lacks the scores of \d+ images, .*: delete the part-"):
        read_images(shared, outcome.images)
    shared.delete(f"{outcome.images}/part-00000.parquet")
    execute(run, shared)


def test_diff_mix_labels_reach_the_classifier(untrained_sd, shared):
    outcome = execute(tiny("diff_mix", "skyworld", untrained_sd), shared)
    table = read_images(shared, outcome.images)
    from bob import backbones

    _, labels = synthetic_arrays(table, backbones.load("resnet_mini"), classes=10)
    assert np.allclose(labels.sum(1), 1)
    target = labels[np.arange(len(labels)), table["class_id"].to_numpy()]
    assert min(target) == pytest.approx(0.7**0.5)
    assert max(target) == 1.0  # where source and target are one class
    assert all(np.isclose(target, 0.7**0.5) | (target == 1))


def test_suffixes_may_be_edited_and_what_depends_on_them_is_drawn_anew(untrained_sd, tmp_path):
    run, artefacts = tiny("diff_ii", "skyworld", untrained_sd), Store(str(tmp_path))
    first = execute(run, artefacts)
    (file,) = artefacts.names("suffixes")
    listed = artefacts.read(f"suffixes/{file}").decode().splitlines()
    assert 1 <= len(listed) <= 10
    assert all(line.startswith("in the ") for line in listed)
    artefacts.write(f"suffixes/{file}", b"above the clouds\n")
    second = execute(run, artefacts)
    assert (second.adapter, second.split) == (first.adapter, first.split)
    assert second.images != first.images
    backgrounds = artefacts.read_table(f"{second.images}/requests.parquet")["background"].to_pylist()
    assert set(backgrounds) == {"above the clouds"}
    artefacts.write(f"suffixes/{file}", b"\n")
    with pytest.raises(ValueError, match=r"lists no suffixes: give it some"):
        execute(run, artefacts)


def test_without_clip_a_filter_says_what_it_wants(untrained_sd, tmp_path, monkeypatch):
    monkeypatch.delenv("BOB_MODELS")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"the filter wants CLIP's weights.* into \$BOB_MODELS/clip_vit_b32"):
        execute(tiny("diff_mix", "skyworld", untrained_sd), Store(str(tmp_path / "out")))


def test_a_source_that_cannot_be_read_is_rejected(untrained_sd, tmp_path, monkeypatch):
    from bob.datasets.skyworld import Skyworld

    whole = Skyworld.open

    def broken(self: Skyworld, shot: object) -> object:
        if shot.class_id == 3 and shot.split == "train":
            raise ValueError("torn")
        return whole(self, shot)

    run, artefacts = tiny("real_guidance", "skyworld", untrained_sd), Store(str(tmp_path))
    cell = pipeline.split(run, artefacts)
    todo = list(walk.generations(cell, artefacts))
    monkeypatch.setattr(Skyworld, "open", broken)
    (receipt,) = workers.inline("cpu")("generate", todo, artefacts)
    assert receipt.rejected == 2
    rejected = artefacts.read_checked(f"{cell.images}/part-00000.rejected.parquet", schema.REJECTED).to_pylist()
    assert {row["row_id"].partition("-")[0] for row in rejected} == {"3"}


def test_a_method_of_another_package_is_one_file(untrained_sd, tmp_path, monkeypatch, capsys):
    """Found by its entry point, listed, run by the command line, and in the table beside ours."""
    (tmp_path / "site" / "again-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "again_method.py").write_text(PLUGIN)
    (tmp_path / "site" / "again-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: again\nVersion: 1.0\n"
    )
    (tmp_path / "site" / "again-1.0.dist-info" / "entry_points.txt").write_text(
        "[beyond_objects.methods]\nagain = again_method:method\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "again" in registry.names("method")
    listed.show()
    assert "each shot again" in capsys.readouterr().out
    arguments = f"--inline --out {tmp_path}/out --method again --dataset skyworld --shots 1 --val 1 --draw.per-class 1"
    arguments += f" --checkpoint path:{untrained_sd} --draw.steps 2 --sweep.lrs 1e-3 --sweep.lambdas 0.5"
    monkeypatch.setattr(
        "sys.argv", ["bob", "run", *arguments.split(), "--sweep.sweep-epochs", "1", "--sweep.final-epochs", "1"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert f"| resnet_mini | again | path:{untrained_sd} |" in capsys.readouterr().out
    artefacts = Store(f"{tmp_path}/out")
    (name,) = (name for name in artefacts.names("tables") if name.endswith(".parquet"))
    assert artefacts.read_table(f"tables/{name}")["row"][0].as_py().startswith("resnet_mini / again / ")
    (requests,) = (path for path in artefacts.listing() if path.endswith("requests.parquet"))
    assert set(artefacts.read_table(requests)["guidance"].to_pylist()) == {1.5}  # its own, as no flag said otherwise
    sys.modules.pop("again_method")
