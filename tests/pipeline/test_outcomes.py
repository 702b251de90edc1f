"""Outcomes of runs, resolved without writing: finished, unfinished, damaged."""

import dataclasses
from pathlib import Path

import pytest

from bob import datasets, pipeline
from bob.core.settings import Run
from bob.pipeline.outcomes import outcomes
from bob.steps import workers
from bob.store import Store


@pytest.fixture
def run(base: Run) -> Run:
    """The run of the fixture `finished`."""
    return dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")


def tree(store: Store) -> dict[str, tuple[int, int]]:
    files = (path for path in Path(store.root).rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_a_finished_run_is_resolved_and_nothing_is_written(artefacts, run):
    before = tree(artefacts)
    (outcome,) = outcomes([run], artefacts)
    for path in (
        outcome.split,
        outcome.final,
        f"{outcome.adapter}/manifest.json",
        f"{outcome.images}/requests.parquet",
    ):
        assert artefacts.exists(path)
    assert all(artefacts.exists(path) for path in outcome.captions)
    assert tree(artefacts) == before


@pytest.mark.parametrize("folder", ["captions", "results"])
def test_a_run_that_lacks_a_step_is_unfinished(artefacts, run, folder):
    (outcome,) = outcomes([run], artefacts)
    artefacts.delete(outcome.captions[0] if folder == "captions" else outcome.final)
    (unfinished,) = outcomes([run], artefacts)
    assert (unfinished.final, unfinished.images, unfinished.captions) == ("", "", ())
    assert (unfinished.split, unfinished.run) == (outcome.split, outcome.run)


def test_a_run_in_an_empty_store_is_unfinished(local, run):
    (outcome,) = outcomes([run], local)
    assert (outcome.final, outcome.images) == ("", "")
    assert not Path(local.root).exists()


@pytest.mark.parametrize("part", ["split", "captions", "requests"])
def test_a_damaged_table_is_named(artefacts, run, part):
    (outcome,) = outcomes([run], artefacts)
    paths = {
        "split": outcome.split,
        "captions": outcome.captions[0],
        "requests": f"{outcome.images}/requests.parquet",
    }
    artefacts.write(paths[part], artefacts.read(paths[part])[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        outcomes([run], artefacts)


def test_fewer_shots_of_a_run_with_a_rejected_caption_are_unfinished(local, run, monkeypatch, capsys):
    """All captions of the smaller split exist, one of them rejected, but the split itself was never written."""
    more, fewer = dataclasses.replace(run, shots=3), dataclasses.replace(run, shots=2)
    lost = pipeline.split(more, local).training.shots[0]
    dataset = datasets.load(run.dataset)
    opened = type(dataset).open

    def broken(self, shot):
        if shot.image_id == lost.image_id:
            raise ValueError("a planted fault")
        return opened(self, shot)

    with monkeypatch.context() as patch:
        patch.setattr(type(dataset), "open", broken)
        pipeline.execute(
            [more],
            artefacts=local,
            executor=workers.inline("cpu"),
            report=lambda step, todo, done, receipts: receipts,
            upto="caption",
            max_rejected=1,
        )
    before = tree(local)
    (outcome,) = outcomes([fewer], local)
    assert outcome.final == ""
    assert "goes on without 1 of its 6 shots" in capsys.readouterr().out
    assert tree(local) == before
