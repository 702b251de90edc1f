"""Whole runs on real data sets: a long tail, a published one, and photographs that a package ships."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bob.store import Store, schema
from tests.integration.tools import Bob
from tests.miniatures import MINIATURES

SMALL = (
    *("--sweep.lrs", "1e-3", "--sweep.sweep-epochs", "1", "--sweep.final-epochs", "1", "--sweep.lambdas", "0.5"),
    *("--sweep.weight-decays", "0", "--finetune.epochs", "1", "--draw.steps", "2"),
)


@pytest.fixture
def bob(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bob:
    return Bob(capsys, monkeypatch)


def only(root: Path, pattern: str) -> str:
    (found,) = root.glob(pattern)
    return str(found.relative_to(root))


@pytest.mark.slow
def test_a_long_tail_runs_to_the_columns_of_table_2(tmp_path: Path, bob: Bob) -> None:
    out = tmp_path / "out"
    flags = ("--method", "datadream", *SMALL, "--draw.per-class", "10", "--out", out)
    code, said, _ = bob.run("--dataset", "skyworld_lt:10", *flags)
    assert code == 0
    header = next(line for line in said.splitlines() if line.startswith("| backbone"))
    assert header == "| backbone | method | SD |" + "".join(
        f" Skyworld-LT IF 10 {group} |" for group in ("many", "medium", "few", "all")
    )
    artefacts = Store(str(out))
    shots = artefacts.read_checked(only(out, "shots/skyworld-lt-10-s0-*.parquet"), schema.SHOTS).to_pylist()
    train = Counter(row["class_id"] for row in shots if row["split"] == "train")
    assert [train[k] for k in range(10)] == [18, 13, 10, 7, 5, 4, 3, 2, 1, 1]
    asked = artefacts.read_checked(only(out, "images/*/requests.parquet"), schema.REQUESTS)["class_id"].to_pylist()
    assert [Counter(asked)[k] for k in range(10)] == [20 - n for n in (18, 13, 10, 7, 5, 4, 3, 2, 1, 1)]
    results = artefacts.read_checked(only(out, "results/*/final.parquet"), schema.RESULTS).to_pylist()
    test = {row["metric"]: row["value"] for row in results if row["split"] == "test"}
    classes = [test[f"class_accuracy/{k}"] for k in range(10)]
    assert test["accuracy_class_mean"] == pytest.approx(np.mean(classes))
    for group, ids in (("many", range(3)), ("medium", range(3, 7)), ("few", range(7, 10))):
        assert test[f"accuracy_{group}"] == pytest.approx(np.mean([classes[k] for k in ids]))
    cells = [f"{100 * test[name]:.2f}" for name in ("accuracy_many", "accuracy_medium", "accuracy_few")]
    assert re.search(r"\| " + r" \| ".join([*cells, f"{100 * test['accuracy_class_mean']:.2f}"]) + r" \|", said)
    assert {row["shots"] for row in results} == {0}


def test_a_long_tail_has_no_shots(tmp_path: Path, bob: Bob) -> None:
    said = bob.refuses("--dataset", "skyworld_lt:10", "--shots", "5", "--out", tmp_path / "out")
    assert "skyworld_lt:10 says how many images each class has, so --shots changes nothing: leave it out" in said


def test_a_run_does_not_depend_on_where_a_published_data_set_lies(
    tmp_path: Path, bob: Bob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result is found again when the pictures have moved, and the paths of its files do not say where they lay."""
    flags = ("--method", "datadream", "--shots", "2", *SMALL, "--draw.per-class", "2", "--out", tmp_path / "out")
    assert bob.run("--dataset", f"pets:{MINIATURES['pets'](tmp_path / 'here')}", *flags)[0] == 0
    made = {path for path in (tmp_path / "out").rglob("*.parquet") if "plans" not in path.parts}
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setenv("BOB_DATA", str(tmp_path / "there"))
    code, said, _ = bob.run("--dataset", "pets", *flags)
    assert code == 0
    assert "| backbone | method | SD | pets 2-shot |" in said
    assert {path for path in (tmp_path / "out").rglob("*.parquet") if "plans" not in path.parts} == made
    assert not [path for path in made if "here" in path.name]


def test_a_split_goes_from_one_user_to_another(tmp_path: Path, bob: Bob) -> None:
    folder = MINIATURES["aircraft"](tmp_path)
    flags = ("--dataset", f"aircraft:{folder}", "--method", "real_only", *SMALL)
    assert bob.run(*flags, "--shots", "3", "--seed", "7", "--out", tmp_path / "one")[0] == 0
    published = tmp_path / "one" / only(tmp_path / "one", "shots/*.parquet")
    code, said, _ = bob.run(*flags, "--splits", published, "--seed", "7", "--out", tmp_path / "other")
    assert code == 0
    assert "aircraft 3-shot" in said
    finals = [only(tmp_path / who, "results/*/final.parquet") for who in ("one", "other")]
    assert finals[0] == finals[1]
    one, other = (Store(str(tmp_path / who)).read_table(finals[0]) for who in ("one", "other"))
    assert one.equals(other)


def test_real_pictures_run_from_a_folder_to_a_table(tmp_path: Path, bob: Bob) -> None:
    """scikit-image ships 100 faces and 100 other cuttings of photographs, 25 px, from Labeled Faces in the Wild."""
    import skimage.data

    for k, pixels in enumerate(skimage.data.lfw_subset()):
        folder = tmp_path / "data" / ("human_face" if k < 100 else "something_else")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / f"{k:03d}.png")
    flags = ("--descriptor", "photograph", "--shots", "5", "--out", tmp_path / "out", "--draw.per-class", "5")
    budget = ("--draw.steps", "2", "--finetune.epochs", "2", "--sweep.lrs", "1e-3", "--sweep.lambdas", "0.5")
    epochs = ("--sweep.weight-decays", "0", "--sweep.sweep-epochs", "5", "--sweep.final-epochs", "10")
    code, said, _ = bob.run("--dataset", f"folder:{tmp_path / 'data'}", "--method", "bob", *flags, *budget, *epochs)
    assert code == 0
    artefacts = Store(str(tmp_path / "out"))
    results = artefacts.read_checked(only(tmp_path / "out", "results/*/final.parquet"), schema.RESULTS).to_pylist()
    (accuracy,) = (row for row in results if (row["split"], row["metric"]) == ("test", "accuracy"))
    assert accuracy["n"] == 200 - 2 * (10 + 16)
    assert accuracy["value"] > 0.6  # half of them are faces
    assert f"{100 * accuracy['value']:.2f}" in said
