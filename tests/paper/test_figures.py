"""Figures 3 to 6 and per-class measures from tiny runs: their numbers, and that their files are complete."""

import dataclasses
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bob import cli, datasets, pipeline
from bob.classifier.embedder import Embedder
from bob.commands import status, verify
from bob.core.settings import DrawSettings, Run
from bob.core.types import Outcome, Unit
from bob.paper import experiments, metrics, outputs
from bob.paper.figures import figure3, figure4, figure5, figure6, per_class
from bob.steps import embed, workers
from bob.store import Store, schema
from bob.store.images import read_images
from bob.store.tables import from_rows
from tests import tiny

Done = tuple[Store, list[Run], list[Outcome]]
METHODS = ("datadream", "bob")
EXECUTOR = workers.inline("cpu")


def report(step: str, todo: int, done: int, receipts: Any) -> Any:
    return receipts


def measure(wanted: list[Unit], runs: list[Run], artefacts: Store, **options: Any) -> None:
    pipeline.measure(wanted, runs=runs, artefacts=artefacts, executor=EXECUTOR, report=report, **options)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Real Only, DataDream and BOB on skyworld, up to their images, with almost no training."""
    base = Run(
        dataset="skyworld:0.8",
        method="bob",
        checkpoint="skyworld",
        captioner="qwen_vl:skyworld",
        backbone="resnet_mini",
        shots=2,
        val=1,
        finetune=dataclasses.replace(tiny.FINETUNE, batch=20),
        draw=DrawSettings(per_class=4, steps=3, batch=20, unit=15),
        sweep=dataclasses.replace(tiny.SWEEP, lrs=(1e-3,)),
    )
    runs = [dataclasses.replace(base, method=method) for method in ("real_only", "datadream", "bob")]
    artefacts = Store(str(tmp_path_factory.mktemp("figures")))
    outcomes = pipeline.execute(runs, artefacts=artefacts, executor=EXECUTOR, report=report, upto="generate")
    return artefacts, runs, outcomes


@pytest.fixture(scope="module")
def measured(drawn: Done) -> Done:
    artefacts, runs, outcomes = drawn
    wanted = per_class.units(outcomes, artefacts)
    # 8 real images a class, 4 of each method: units are slices of the first and whole shards of the others.
    assert [unit.size for unit in wanted] == [80, *[15] * 6]
    measure(wanted, runs, artefacts)
    return drawn


def rows(artefacts: Store, name: str, **only: Any) -> list[dict[str, Any]]:
    found = artefacts.read_checked(f"figures/{name}.parquet", schema.METRICS).to_pylist()
    return [row for row in found if all(row[key] == value for key, value in only.items())]


def test_a_command_may_end_with_its_images(drawn: Done) -> None:
    artefacts, _, (real_only, datadream, bob) = drawn
    assert [outcome.final for outcome in (real_only, datadream, bob)] == ["", "", ""]
    assert (real_only.images, real_only.captions, datadream.captions) == ("", (), ())
    assert len(read_images(artefacts, bob.images)) == 40
    assert bob.captions
    assert not artefacts.names("results")
    found = status.read(artefacts)
    assert {step.name for step in found.steps} >= {"caption", "finetune", "generate"}
    assert found.open == 0


def test_an_unknown_step_to_end_with_is_refused(drawn: Done) -> None:
    artefacts, runs, _ = drawn
    with pytest.raises(ValueError, match=r"unknown step to end with 'images'; known: .*generate"):
        pipeline.execute(runs, artefacts=artefacts, executor=EXECUTOR, report=report, upto="images")


def test_measuring_again_does_nothing(measured: Done) -> None:
    artefacts, runs, outcomes = measured
    before = {path: info.mtime_ns for path, info in artefacts.listing().items()}
    measure(per_class.units(outcomes, artefacts), runs, artefacts)
    assert {path: info.mtime_ns for path, info in artefacts.listing().items()} == before
    assert {step.name: step.todo for step in status.read(artefacts).steps}["embed"] == 0


def test_every_measure_of_every_class_is_in_the_table(measured: Done) -> None:
    artefacts, _, outcomes = measured
    text = per_class.draw(outcomes, artefacts, name="measures")
    for metric, methods, n in (
        ("fid", {"datadream", "bob"}, 4),
        ("kid", {"datadream", "bob"}, 4),
        ("diversity", {"datadream", "bob", "real"}, 4),
        ("fid_floor", {"real"}, 4),
        ("kid_floor", {"real"}, 4),
        ("leakage", {"real"}, 2),
    ):
        found = rows(artefacts, "measures", metric=metric)
        assert {row["method"] for row in found} == methods, metric
        assert len(found) == 10 * len(methods)
        assert {row["n"] for row in found} == {n}
    contexts = rows(artefacts, "measures", metric="context_entropy")
    assert {(row["method"], row["n"]) for row in contexts} == {("bob", 4), ("real", 2)}
    assert all(0 <= row["value"] <= np.log2(row["n"]) + 1e-9 for row in contexts)
    assert all(1 <= row["value"] <= 4 for row in rows(artefacts, "measures", metric="diversity"))
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| datadream", "| bob", "| real"]


def test_a_class_is_compared_with_what_its_shots_were_drawn_from(measured: Done) -> None:
    """By hand, from the pictures and the network itself."""
    artefacts, _, outcomes = measured
    per_class.draw(outcomes, artefacts, name="measures")
    bob, dataset = outcomes[2], datasets.load("skyworld:0.8")
    assert [s.image_id for s in dataset.split(shots=8, val=1, seed=0) if s.split == "train"] == [
        s.image_id for s in dataset.training_side(most=8, seed=0, without=())
    ]
    real = [s for s in dataset.split(shots=8, val=1, seed=0) if s.split == "train" and s.class_id == 3]
    images = [row for row in read_images(artefacts, bob.images).to_pylist() if row["class_id"] == 3]
    embed = Embedder("resnet_mini", device="cpu")

    def features(pictures: list[Any]) -> np.ndarray:
        found, _ = embed([str(k) for k in range(len(pictures))], [3] * len(pictures), lambda k: pictures[k])
        return np.stack([row["features"] for row in found])

    theirs, ours = (
        features([dataset.open(shot) for shot in real]),
        features([Image.open(io.BytesIO(row["image"])) for row in images]),
    )
    (row,) = rows(artefacts, "measures", metric="fid", method="bob", class_id=3)
    assert row["value"] == pytest.approx(metrics.fid(theirs[:4], ours), rel=1e-4)
    (floor,) = rows(artefacts, "measures", metric="fid_floor", class_id=3)
    assert floor["value"] == pytest.approx(metrics.fid(theirs[:4], theirs[4:]), rel=1e-4)


def test_figures_are_whole_and_the_same_again(measured: Done) -> None:
    artefacts, _, outcomes = measured
    drawers: dict[str, Any] = {"three": figure3.draw, "four": figure4.draw, "six": figure6.draw}
    for name, draw in drawers.items():
        draw(outcomes, artefacts, name=name)
        first = {kind: artefacts.read(f"figures/{name}.{kind}") for kind in ("svg", "pdf")}
        draw(outcomes, artefacts, name=name)
        assert {kind: artefacts.read(f"figures/{name}.{kind}") for kind in ("svg", "pdf")} == first
        assert b"dc:date" not in first["svg"]
        assert first["svg"].count(b"<image") == (10 if name == "three" else 0)  # vector, but for pictures
    verdict = verify.verify(artefacts)
    assert (verdict.problems, verdict.foreign) == ((), ())


def test_figure_3_shows_the_class_that_is_asked_for(drawn: Done) -> None:
    artefacts, _, outcomes = drawn
    text = figure3.draw(outcomes, artefacts, name="three", class_name="Bora", columns=3)
    assert text.splitlines()[0] == "Images of class Bora:"
    assert "- bob: 3-0, 3-1, 3-2" in text
    with pytest.raises(ValueError, match=r"unknown class 'Boras'; known: .*Did you mean 'Bora'"):
        figure3.draw(outcomes, artefacts, name="three", class_name="Boras")


def test_figure_4_tells_modes(measured: Done) -> None:
    artefacts, _, outcomes = measured
    text = figure4.draw(outcomes, artefacts, name="four")
    assert [line.split(" | ")[0] for line in text.splitlines()] == [
        "| per-class FID",
        "|---|---|---|---|---|",
        "| datadream",
        "| bob",
        "| real to real",
    ]
    found = [row["value"] for row in rows(artefacts, "four", metric="fid", method="bob")]
    (line,) = [line for line in text.splitlines() if line.startswith("| bob")]
    assert f"| {np.mean(found):.4g} | {np.median(found):.4g} | 10 |" in line
    assert min(found) * 0.5 < float(line.split("|")[2]) < max(found) * 1.5


def test_the_density_is_one_and_its_mode_is_where_values_are() -> None:
    grid = np.linspace(0, 50, 2001)
    values = np.array([20.0, 21.0, 20.5, 19.5, 40.0])
    for some in (values, values[:1], np.full(4, 7.0)):
        curve = figure4.density(some, grid)
        assert np.trapezoid(curve, grid) == pytest.approx(1, abs=0.02)
        assert grid[curve.argmax()] == pytest.approx(np.median(some), abs=1)


def test_figure_6_counts_classes(measured: Done) -> None:
    artefacts, _, outcomes = measured
    text = figure6.draw(outcomes, artefacts, name="six")
    fids = {m: {r["class_id"]: r["value"] for r in rows(artefacts, "six", metric="fid", method=m)} for m in METHODS}
    lower = [fids["datadream"][k] - fids["bob"][k] for k in range(10)]
    assert f"in {sum(d > 0 for d in lower)} of 10 classes, in {sum(d > 5 for d in lower)} of them by more" in text
    assert re.search(r"Median difference: (-?[0-9.e-]+), datadream's median being [0-9.]+\.", text)
    with pytest.raises(ValueError, match="compares diff_ii with bob"):
        figure6.draw(outcomes, artefacts, name="six", other="diff_ii")


@pytest.mark.parametrize("values", [[0.3, -0.2], [7.0, 8.0], [-100.0], [0.0, 0.0], [12.0, -31.0, 5.0]])
def test_bins_hold_every_value_and_zero_parts_them(values: list[float]) -> None:
    found, places = np.array(values), figure6.edges(np.array(values))
    assert np.histogram(found, places)[0].sum() == len(found)
    assert abs(places).min() < 1e-12
    assert 2 <= len(places) <= 24


def test_images_can_be_compared_with_the_test_set(drawn: Done) -> None:
    artefacts, runs, outcomes = drawn
    wanted = figure4.units(outcomes, artefacts, against="test")
    measure(wanted, runs, artefacts)
    figure4.draw(outcomes, artefacts, name="four-test", against="test")
    assert {row["n"] for row in rows(artefacts, "four-test")} == {4}
    with pytest.raises(ValueError, match="train or test, got 'val'"):
        figure4.units(outcomes, artefacts, against="val")


def test_features_of_images_that_were_drawn_later_are_missed(measured: Done, tmp_path: Path) -> None:
    artefacts, _, outcomes = measured
    other = Store(str(shutil.copytree(artefacts.root, tmp_path / "out")))
    target = next(unit.target for unit in per_class.units(outcomes, other) if isinstance(unit.work, embed.DrawnWork))
    other.write_table(target, other.read_table(target).slice(1), {"config": {}})
    with pytest.raises(ValueError, match=r"features of 1 images are missing, 0-0 among them"):
        figure4.draw(outcomes, other, name="four")


def test_runs_that_draw_nothing_cannot_be_measured(drawn: Done) -> None:
    artefacts, _, outcomes = drawn
    with pytest.raises(ValueError, match="none of these runs draws images"):
        figure4.units(outcomes[:1], artefacts)
    with pytest.raises(ValueError, match="none of these runs asks a captioner"):
        figure5.units(outcomes[:2], artefacts)


def test_figure_5_sets_captioners_against_what_they_lead_to(drawn: Done, untrained_qwen: Path) -> None:
    artefacts, (_, datadream, bob), _ = drawn
    runs = [datadream, bob, dataclasses.replace(bob, captioner=f"qwen_vl:path:{untrained_qwen}")]
    outcomes = pipeline.execute(runs, artefacts=artefacts, executor=EXECUTOR, report=report)
    wanted = figure5.units(outcomes, artefacts, images=38)
    assert [unit.size for unit in wanted] == [30, 30]
    measure(wanted, runs, artefacts)
    text = figure5.draw(outcomes, artefacts, name="five", images=38)
    assert len(text.splitlines()) == 5
    own = rows(artefacts, "five", metric="captioner_accuracy", class_id=-1)
    assert [(row["captioner"], row["n"]) for row in own] == [(run.captioner, 30) for run in runs[1:]]
    assert rows(artefacts, "five", metric="test_accuracy", method="datadream", class_id=-1)
    tables = [artefacts.read_checked(u.target, schema.RECOGNISED) for u in wanted if u.group == bob.captioner]
    seen = [row for table in tables for row in table.to_pylist()]
    assert own[0]["value"] == pytest.approx(np.mean([row["guess"] == row["class_id"] for row in seen]))
    assert all(row["log_likelihood"] < 0 for row in seen)
    assert verify.verify(artefacts).problems == ()


def _changed(table: pa.Table, column: str, value: Any) -> pa.Table:
    rows = table.to_pylist()
    rows[0][column] = value
    return from_rows(rows, table.schema)


@pytest.mark.parametrize(
    ("pattern", "damage", "words"),
    [
        ("features/*.parquet", lambda t: t.slice(1), "neither there nor rejected"),
        ("features/*.parquet", lambda t: _changed(t, "features", [float("nan")] * 128), "not finite"),
        ("features/*.parquet", lambda t: _changed(t, "features", [1.0] * 3), "several widths"),
        ("figures/four.parquet", lambda t: pa.concat_tables([t, t]), "more than once"),
    ],
)
def test_damage_is_named(measured: Done, tmp_path: Path, pattern: str, damage: Any, words: str) -> None:
    artefacts, _, outcomes = measured
    figure4.draw(outcomes, artefacts, name="four")
    other = Store(str(shutil.copytree(artefacts.root, tmp_path / "out")))
    path = min(Path(other.root).glob(pattern)).relative_to(other.root).as_posix()
    other.write_table(path, damage(other.read_table(path)), artefacts.manifest(path))
    (problem,) = verify.verify(other).problems
    assert problem.path == path
    assert words in problem.wrong


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_a_figure_that_was_cut_short_is_named(measured: Done, tmp_path: Path, kind: str) -> None:
    artefacts, _, outcomes = measured
    figure4.draw(outcomes, artefacts, name="four")
    other = Store(str(shutil.copytree(artefacts.root, tmp_path / "out")))
    other.write(f"figures/four.{kind}", other.read(f"figures/four.{kind}")[:-20])
    (problem,) = verify.verify(other).problems
    assert (problem.path, problem.wrong) == (f"figures/four.{kind}", "is not whole")


def test_figure_3_shows_the_papers_class_where_the_data_set_has_it() -> None:
    skyworld = datasets.load("skyworld")
    assert figure3.class_id(skyworld) == 0
    assert figure3.class_id(dataclasses.replace(skyworld, class_names=("A380", "737-400", "C-130"))) == 1


def test_the_class_of_figure_3_is_checked_before_anything_is_run() -> None:
    runs, figure = experiments.load("skyworld_figure3", (0,)), outputs.Figure("figure3")
    assert figure.showing("Bora", runs).class_name == "Bora"
    with pytest.raises(ValueError, match="unknown class 'Boras'"):
        figure.showing("Boras", runs)
    with pytest.raises(ValueError, match="figure4 shows all classes"):
        outputs.Figure("figure4").showing("Bora", runs)


@pytest.mark.parametrize(("experiment", "words"), [("skyworld", "for figure3"), ("skyworld_figure3", "unknown class")])
def test_a_class_that_no_figure_shows_ends_the_command(
    experiment: str, words: str, tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", experiment, "--figure-class", "Boras", "--inline", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
