"""The whole pipeline in one process, on a few pictures and an untrained mini Stable Diffusion."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bob import pipeline
from bob.classifier import trainer
from bob.core.types import Outcome, Receipt, Unit
from bob.paper import layouts, render, tabulate
from bob.steps import caption
from bob.steps.classify import ClassifyWorker
from bob.steps.workers import WORKERS
from bob.store import Store, schema
from tests.tiny import CLASSES, DRAW, FINETUNE, SWEEP, WEIGHTS, Told, accuracies, both, execute


@pytest.fixture(scope="module")
def done(base, tmp_path_factory) -> tuple[Store, list[Outcome], Told]:
    """DataDream and Real Only, run once; not to be changed."""
    artefacts = Store(str(tmp_path_factory.mktemp("out")))
    return artefacts, *execute(both(base), artefacts)


def files(artefacts: Store) -> dict[str, int]:
    """Every file below the root -> when it was last written."""
    root = Path(artefacts.root)
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def made(found: Iterable[str]) -> set[str]:
    """Without plans, which every new set of runs has of its own."""
    return {name for name in found if not name.startswith("plans/")}


# -- execute ------------------------------------------------------------------------------------


def test_runs_from_pictures_to_accuracies(done):
    artefacts, (datadream, real_only), told = done
    assert told.steps() == ["adapters", *["images"] * 3, *["results"] * 6]
    assert [receipt.size for receipt in told.done] == [4, 5, 5, 2, 1, 1, 2, 1, 1, 2]  # each final after its own sweep
    assert real_only.adapter == real_only.images == ""
    images = [artefacts.read_table(f"{datadream.images}/part-{k:05d}.parquet") for k in range(3)]
    assert all(table.schema.equals(schema.IMAGES) for table in images)
    drawn = [row for table in images for row in table.to_pylist()]
    assert [(row["class_id"], row["index"]) for row in drawn] == [(c, k) for c in range(3) for k in range(4)]
    assert {row["adapter"] for row in drawn} == {datadream.adapter}
    assert {row["prompt"] for row in drawn} == {f"a bird photo of a {name}" for name in CLASSES}
    for outcome in (datadream, real_only):
        rows = artefacts.read_table(outcome.final).to_pylist()
        assert {row["phase"] for row in rows} == {"final"}
        assert {row["method"] for row in rows} == {outcome.run.method}
        assert {row["lr"] for row in rows} <= set(SWEEP.lrs)
        assert {row["lambda"] for row in rows} == {0.5 if outcome is datadream else 1.0}
    assert all(0 <= value <= 1 for value in accuracies([datadream, real_only], artefacts))
    assert not [name for name in files(artefacts) if name.endswith((".tmp", "state.pt"))]


def test_the_same_command_again_does_nothing(done, base):
    artefacts, outcomes, told = done
    before = files(artefacts)
    again, silent = execute(both(base), artefacts)
    assert silent.done == []
    assert silent.before == len(told.done)
    assert files(artefacts) == before
    assert again == outcomes
    assert accuracies(again, artefacts) == accuracies(outcomes, artefacts)


def test_elsewhere_the_same_run_gives_the_same_bytes(done, base, tmp_path):
    artefacts, outcomes, _ = done
    other, stale = Store(str(tmp_path)), tmp_path / f".part-00000.parquet.{'0' * 32}.tmp"
    stale.write_bytes(b"half")  # by a writer that was killed long ago
    os.utime(stale, (0, 0))
    (outcome,), _ = execute([base], other)
    assert not stale.exists()
    assert outcome == outcomes[0]
    path = f"{outcome.adapter}/{WEIGHTS}"
    assert other.read(path) == artefacts.read(path)
    assert accuracies([outcome], other) == accuracies(outcomes[:1], artefacts)


def test_a_shard_that_is_lost_is_drawn_again_alone_and_the_same(done, base):
    artefacts, (outcome, _), _ = done
    lost = f"{outcome.images}/part-00001.parquet"
    before, sums = files(artefacts), artefacts.read_table(lost, columns=["request_id", "sha1"])
    artefacts.delete(lost)
    _, told = execute([base], artefacts)
    assert [receipt.target for receipt in told.done] == [lost]
    assert artefacts.read_table(lost, columns=["request_id", "sha1"]).equals(sums)
    after = files(artefacts)
    assert {name for name in made(after) if after[name] != before[name]} == {lost}


def test_a_fine_tune_that_was_killed_goes_on_where_it_was(done, base, tmp_path, capsys):
    class Killed(BaseException):
        pass

    def tell(words: str) -> None:
        if words.startswith("step 2 of 4"):
            raise Killed

    def executor(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        worker: Any = WORKERS[step](artefacts.root, device="cpu")
        for unit in units:
            yield worker(unit, tell=tell)

    artefacts = Store(str(tmp_path))
    with pytest.raises(Killed):
        pipeline.execute([base], artefacts=artefacts, executor=executor, report=Told())
    assert [name.rpartition("/")[2] for name in files(artefacts) if name.startswith("adapters/")] == ["state.pt"]
    capsys.readouterr()
    (outcome,), _ = execute([base], artefacts)
    shown = capsys.readouterr().out
    assert "step 3 of 4" in shown
    assert "step 1 of 4" not in shown
    assert sorted(artefacts.names(outcome.adapter)) == ["manifest.json", WEIGHTS]
    assert artefacts.read(f"{outcome.adapter}/{WEIGHTS}") == done[0].read(f"{outcome.adapter}/{WEIGHTS}")


def test_a_classifier_that_was_killed_goes_on_where_it_was(done, base, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def executor(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        worker = ClassifyWorker(artefacts.root, device="cpu", save_every=0.0)
        for unit in units:

            def report(row: Mapping[str, Any], final: bool = unit.target.endswith("final.parquet")) -> None:
                if final:
                    raise Killed

            yield worker(unit, report=report)

    run, artefacts, epochs = dataclasses.replace(base, method="real_only"), Store(str(tmp_path)), []
    with pytest.raises(Killed):
        pipeline.execute([run], artefacts=artefacts, executor=executor, report=Told())
    (state,) = (name for name in files(artefacts) if name.endswith("state.pt"))
    original = trainer.Trainer.run_epoch
    monkeypatch.setattr(trainer.Trainer, "run_epoch", lambda self, epoch: epochs.append(epoch) or original(self, epoch))
    (outcome,), told = execute([run], artefacts)
    assert told.steps() == ["results"]
    assert epochs == [2]
    assert state == f"{outcome.final}.state.pt"
    assert not artefacts.exists(state)
    assert artefacts.read_table(outcome.final).equals(done[0].read_table(outcome.final))


def test_runs_share_what_they_have_in_common(done, base):
    artefacts, (outcome, _), _ = done
    before = files(artefacts)
    sweep = dataclasses.replace(SWEEP, sweep_epochs=2)
    often = dataclasses.replace(FINETUNE, checkpoint_every=3)  # changes no result
    (other,), told = execute([dataclasses.replace(base, sweep=sweep, finetune=often)], artefacts)
    assert (other.adapter, other.images, other.split) == (outcome.adapter, outcome.images, outcome.split)
    assert other.final != outcome.final
    assert set(told.steps()) == {"results"}
    assert {name.partition("/")[0] for name in made(files(artefacts)) - set(before)} == {"results"}
    assert sorted(artefacts.names(outcome.adapter)) == ["manifest.json", WEIGHTS]
    assert sorted(artefacts.names(outcome.images)) == [f"part-{k:05d}.parquet" for k in range(3)] + ["requests.parquet"]


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ({"seed": 1}, {"adapters", "images", "results"}),
        ({"finetune": dataclasses.replace(FINETUNE, lr=2e-4)}, {"adapters", "images", "results"}),
        ({"draw": dataclasses.replace(DRAW, guidance=3.0)}, {"images", "results"}),
        ({"method": "real_only", "draw": dataclasses.replace(DRAW, per_class=6)}, {"results"}),  # more copies
    ],
)
def test_what_depends_on_a_setting_is_made_anew(done, base, changes, made):
    _, told = execute([dataclasses.replace(base, **changes)], done[0])
    assert set(told.steps()) == made


def test_methods_that_learn_the_same_share_an_adapter(base, tmp_path, untrained_qwen):
    captioner = f"qwen_vl:path:{untrained_qwen}"
    switches = ("bob", "bob:marginalisation=class", "bob:preservation=off", "datadream")
    runs = [dataclasses.replace(base, method=method, captioner=captioner) for method in switches]
    outcomes, told = execute(runs, Store(str(tmp_path / "out")))
    assert told.steps().count("captions") == 2  # a unit a rank of the shots
    assert told.steps().count("adapters") == 2
    adapters = [outcome.adapter for outcome in outcomes]
    assert adapters[0] == adapters[1] != adapters[2] == adapters[3]
    assert len({outcome.images for outcome in outcomes}) == 4


def test_more_shots_read_only_what_fewer_have_not(base, tmp_path):
    base = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    cells = [dataclasses.replace(base, shots=shots) for shots in (2, 4)]
    few, many = ([unit.target for unit in caption.units(pipeline.split(run, Store(str(tmp_path))))] for run in cells)
    assert (len(few), len(many)) == (2, 4)
    assert many[:2] == few


def test_mistakes_are_found_before_any_work(base, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to"):
        execute([base], Store(str(tmp_path / "file" / "out")))
    for changes, words in (
        ({"method": "bobb"}, "unknown method 'bobb'"),
        ({"dataset": "skyworlds"}, "unknown dataset 'skyworlds'"),
        ({"shots": 6}, "has 7 pictures in .*, but 6 shots need 8"),
    ):
        artefacts = Store(str(tmp_path / "out"))
        with pytest.raises(ValueError, match=words):
            execute([dataclasses.replace(base, **changes), base], artefacts)
        assert files(artefacts) == {}


# -- tables -------------------------------------------------------------------------------------


def test_writes_tables_and_a_picture(done):
    artefacts, outcomes, _ = done
    table = tabulate.write([*outcomes, outcomes[0]], artefacts, name="smoke")  # one cell asked for twice
    assert [row["seeds"] for row in table.to_pylist()] == [1, 1]
    assert [row["ours"] for row in table.to_pylist()] == [100 * value for value in accuracies(outcomes, artefacts)]
    names = artefacts.names("tables")
    (picture,) = (name for name in names if name.endswith(".png"))
    assert picture.endswith("-2shot-s0.png")
    assert sorted(set(names) - {picture}) == ["smoke.csv", "smoke.md", "smoke.parquet", "smoke.tex"]
    assert artefacts.read_table("tables/smoke.parquet").equals(table)
    assert artefacts.read("tables/smoke.md").decode() == render.markdown(table, layouts.PLAIN)
