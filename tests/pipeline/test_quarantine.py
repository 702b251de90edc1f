"""Rejected rows: counted, named, retried on demand, and left out only where that is allowed."""

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from bob import pipeline
from bob.core.settings import DrawSettings, FinetuneSettings, Run, SweepSettings
from bob.core.types import Outcome, Receipt, Unit
from bob.steps import caption, workers
from bob.store import Store, schema


@pytest.fixture
def run(tmp_path, untrained_sd, untrained_qwen) -> Run:
    """BOB on three classes of seven pictures, which may be broken."""
    rng = np.random.default_rng(0)
    for name in ("Egret", "Heron", "Teal"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(7):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    return Run(
        dataset=f"folder:{tmp_path / 'photos'}",
        method="bob",
        shots=2,
        val=2,
        checkpoint=f"path:{untrained_sd}",
        captioner=f"qwen_vl:path:{untrained_qwen}",
        backbone="resnet_mini",
        finetune=FinetuneSettings(epochs=1, batch=3, warmup_steps=1, rank=2),
        draw=DrawSettings(per_class=4, steps=2, batch=3, unit=5),
        sweep=SweepSettings(lrs=(1e-3,), weight_decays=(0.0,), lambdas=(0.5,), sweep_epochs=1, final_epochs=1),
    )


@pytest.fixture
def artefacts(tmp_path) -> Store:
    return Store(str(tmp_path / "out"))


def execute(
    run: Run, artefacts: Store, *, max_rejected: int = 0, executor: pipeline.Executor | None = None
) -> tuple[Outcome, list[Receipt]]:
    """What the run has come to, and what was done for it."""
    done: list[Receipt] = []

    def report(step: str, todo: int, before: int, receipts: Iterator[Receipt]) -> Iterable[Receipt]:
        for receipt in receipts:
            done.append(receipt)
            yield receipt

    executor = executor or workers.inline("cpu")
    (outcome,) = pipeline.execute(
        [run], artefacts=artefacts, executor=executor, report=report, max_rejected=max_rejected
    )
    return outcome, done


def steps(done: Sequence[Receipt]) -> list[str]:
    """The folders of what was made, one an artefact."""
    return [receipt.target.partition("/")[0] for receipt in done]


def breaking(path: Path) -> pipeline.Executor:
    """An executor under which a picture is truncated while captions are made, and whole again after."""
    executor = workers.inline("cpu")

    def run(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        whole = path.read_bytes()
        if step == "caption":
            path.write_bytes(whole[:1000])
        yield from executor(step, units, artefacts)
        path.write_bytes(whole)

    return run


def test_a_shot_that_cannot_be_read_is_rejected_left_out_or_read_again(run, artefacts, tmp_path, capsys):
    cell = pipeline.split(run, artefacts)
    bad, wanted = cell.training.shots[2], list(caption.units(cell))
    (target,) = (unit.target for unit in wanted if bad.image_id in [shot.image_id for shot in unit.work.shots])
    quarantine, path = target.replace(".parquet", ".rejected.parquet"), tmp_path / "photos" / bad.path
    with pytest.raises(ValueError, match="1 rows were rejected, at most 0 may be") as caught:
        execute(run, artefacts, executor=breaking(path))
    words = str(caught.value)
    assert (
        f"the first is {bad.image_id} of step caption (ValueError: {path} has changed since the split was drawn"
        in words
    )
    assert f"delete both {artefacts.root}/{target} and {artefacts.root}/{quarantine}; " in words
    with pytest.raises(ValueError, match="1 rows were rejected"):  # what is done is done, a rejected row or not
        execute(run, artefacts)

    capsys.readouterr()
    without, done = execute(run, artefacts, max_rejected=1)
    assert set(steps(done)) == {"adapters", "images", "results"}
    assert "goes on without 1 of its 6 shots, which have no caption" in capsys.readouterr().out
    assert without.shots == tuple(shot for shot in cell.training.shots if shot != bad)
    seen = artefacts.read_table(without.split)["image_id"].to_pylist()
    assert seen == [name for name in artefacts.read_table(cell.split)["image_id"].to_pylist() if name != bad.image_id]
    assert execute(run, artefacts, max_rejected=1) == (without, [])

    for name in (target, quarantine):
        artefacts.delete(name)
    whole, done = execute(run, artefacts)
    assert [receipt.target for receipt in done if receipt.target.startswith("captions/")] == [target]
    assert (whole.shots, whole.split) == (cell.training.shots, cell.split)
    assert {whole.adapter, whole.images, whole.final}.isdisjoint({without.adapter, without.images, without.final})


def test_the_receipt_counts_what_was_rejected(run, artefacts, tmp_path):
    cell, done = pipeline.split(run, artefacts), []

    def noting(step: str, todo: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        for receipt in breaking(tmp_path / "photos" / cell.training.shots[0].path)(step, todo, artefacts):
            done.append(receipt)
            yield receipt

    with pytest.raises(ValueError, match="1 rows were rejected"):
        execute(run, artefacts, executor=noting)
    assert [receipt.rejected for receipt in done] == [1, 0]
    assert [len(artefacts.read_table(receipt.target)) for receipt in done] == [2, 3]


def test_a_captions_table_that_lacks_more_than_was_rejected_is_damaged(run, artefacts, tmp_path):
    """Its other shots would be left out, and nobody told."""
    path = tmp_path / "photos" / pipeline.split(run, artefacts).training.shots[0].path
    with pytest.raises(ValueError, match="1 rows were rejected"):
        execute(run, artefacts, executor=breaking(path))
    (quarantine,) = (name for name in artefacts.names("captions") if name.endswith(".rejected.parquet"))
    target = f"captions/{quarantine.replace('.rejected', '')}"
    whole = artefacts.read_table(target)
    artefacts.write_table(target, whole.slice(1), {})
    with pytest.raises(ValueError, match=r"is damaged \(1 rows, wanted 2\): delete it"):
        execute(run, artefacts, max_rejected=1)
    artefacts.write_table(target, whole, {})
    artefacts.write_table(f"captions/{quarantine}", whole, {})
    with pytest.raises(ValueError, match=r"rejected\.parquet is damaged \(missing, unknown or repeated columns"):
        execute(run, artefacts, max_rejected=1)


def test_a_class_without_a_caption_ends_the_run(run, artefacts, tmp_path):
    run = dataclasses.replace(run, shots=1)
    bad = next(shot for shot in pipeline.split(run, artefacts).training.shots if shot.class_name == "Heron")
    with pytest.raises(ValueError, match="no shot of class 'Heron' has a caption, but each class needs one"):
        execute(run, artefacts, executor=breaking(tmp_path / "photos" / bad.path), max_rejected=1)


def test_what_cannot_be_drawn_fails_the_run_however_often_it_is_tried(run, artefacts, untrained_sd, tmp_path):
    """A decoder that paints everything in one colour: it can be tuned, but draws nothing."""
    shutil.copytree(untrained_sd, tmp_path / "sd")
    (file,) = (tmp_path / "sd" / "vae").glob("*.safetensors")
    state = load_file(file)
    state["decoder.conv_out.weight"] *= 0
    save_file(state, file, metadata={"format": "pt"})
    run = dataclasses.replace(run, method="datadream", checkpoint=f"path:{tmp_path / 'sd'}")
    words = r"12 rows were rejected, at most 11 may be: the first is 0-0 of step generate \(ValueError: one colour"
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{words}.* delete both .*, and so for 2 more \*\.rejected\.parquet"):
            execute(run, artefacts, max_rejected=11)
    outcome, done = execute(run, artefacts, max_rejected=12)
    assert set(steps(done)) == {"results"}
    assert artefacts.exists(outcome.final)
    names = artefacts.names(outcome.images)
    assert sum(name.endswith(".rejected.parquet") for name in names) == 3
    rejected = artefacts.read_table(f"{outcome.images}/part-00002.rejected.parquet")
    assert rejected.schema.equals(schema.REJECTED)
    assert rejected["row_id"].to_pylist() == ["2-2", "2-3"]

    run = dataclasses.replace(run, method="bob")
    bad = pipeline.split(run, artefacts).training.shots[0]
    with pytest.raises(ValueError, match=r"13 rows were rejected, at most 12 may be: the first is .* of step caption"):
        execute(run, artefacts, max_rejected=12, executor=breaking(tmp_path / "photos" / bad.path))
