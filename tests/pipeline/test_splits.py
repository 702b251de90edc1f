"""Given splits in place of drawn ones: published splits, and the shots of another paper."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bob import datasets, pipeline
from bob.core.settings import Run
from bob.core.types import Shot
from bob.datasets import Dataset, _split_file
from bob.store import Store, schema, tables
from tests.miniatures import MINIATURES


def sizes(shots: Iterable[Shot]) -> Counter[tuple[str, str]]:
    return Counter((shot.class_name, shot.split) for shot in shots)


@pytest.fixture
def birds(tmp_path: Path) -> Dataset:
    return datasets.load(f"cub:{MINIATURES['cub'](tmp_path)}")


def published(dataset: Dataset, file: Path, shots: Iterable[Shot] | None = None) -> Path:
    """The split as `bob run` writes it below shots/."""
    rows = [vars(shot) for shot in shots or dataset.split(shots=5, val=6, seed=0)]
    Store(str(file.parent)).write_table(file.name, tables.from_rows(rows, schema.SHOTS), {})
    return file


@pytest.mark.parametrize("name", ["cub", "skyworld"])
def test_a_published_split_comes_back_as_it_is(name: str, birds: Dataset, tmp_path: Path) -> None:
    dataset = birds if name == "cub" else datasets.load("skyworld")
    shots = dataset.split(shots=5, val=6, seed=0)
    assert _split_file.read(published(dataset, tmp_path / "split.parquet"), dataset, val=1, seed=9) == shots


def test_a_run_on_its_own_published_split_is_the_same_run(birds: Dataset, tmp_path: Path) -> None:
    """Same path, so all that comes after it is found too; a split with one other picture is another."""
    run = Run(dataset=f"cub:{birds.root}", method="real_only", shots=5, val=6)  # type: ignore[attr-defined]
    artefacts = Store(str(tmp_path / "out"))
    drawn = pipeline.split(run, artefacts)
    given = Run(dataset=run.dataset, method="real_only", splits=f"{tmp_path}/out/{drawn.split}", seed=0)
    back = pipeline.split(given, artefacts)
    assert (back.split, back.training, back.run.shots) == (drawn.split, drawn.training, 5)
    shots = list(birds.split(shots=5, val=6, seed=0))
    victim = next(shot for shot in birds.split(shots=6, val=6, seed=0) if shot not in shots)
    shots[shots.index(next(shot for shot in shots if shot.class_id == victim.class_id))] = victim
    other = Run(dataset=run.dataset, method="real_only", splits=str(published(birds, tmp_path / "o.parquet", shots)))
    assert pipeline.split(other, artefacts).split != drawn.split


def _change(**changes: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda rows: rows[0].update(changes)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_change(sha1="0" * 40), r"is not the picture that .* was drawn from: its SHA-1 is [0-9a-f]{40}, wanted 0{40}"),
        (_change(class_name="Egret"), "calls class 0 'Egret', cub calls it 'Black footed Albatross'"),
        (_change(class_id=9), "calls class 9 'Black footed Albatross', cub calls it 'nothing'"),
        (_change(split="dev"), "'dev'"),
        (_change(path="images/gone.jpg"), "gone.jpg cannot be read"),
        (lambda rows: rows.append(rows[0] | {"image_id": "again", "split": "test"}), "more than once"),
        (lambda rows: rows.append(rows[0]), "is no split .*two rows of the same image_id"),
        (lambda rows: rows.__delitem__(slice(0, 5)), "has no train picture of class 'Black footed Albatross'"),
        (lambda rows: rows.__delitem__(slice(44, None)), "has no test picture"),
    ],
)
def test_a_split_of_something_else_is_refused(
    spoil: Callable[[list[dict[str, Any]]], object], reason: str, birds: Dataset, tmp_path: Path
) -> None:
    rows = [dict(vars(shot)) for shot in birds.split(shots=5, val=6, seed=0)]
    spoil(rows)
    Store(str(tmp_path)).write_table("s.parquet", tables.from_rows(rows, schema.SHOTS), {})
    with pytest.raises(ValueError, match=reason):
        _split_file.read(tmp_path / "s.parquet", birds, val=1, seed=0)


def test_what_is_no_split_is_refused(birds: Dataset, tmp_path: Path) -> None:
    (tmp_path / "s.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"s\.parquet is no split"):
        _split_file.read(tmp_path / "s.parquet", birds, val=1, seed=0)
    with pytest.raises(ValueError, match=r"list\.txt cannot be read"):
        _split_file.read(tmp_path / "list.txt", birds, val=1, seed=0)
    (tmp_path / "list.txt").write_text("x.png\n")
    with pytest.raises(ValueError, match=r"skyworld has no picture files .*: give a \.parquet split"):
        _split_file.read(tmp_path / "list.txt", datasets.load("skyworld"), val=1, seed=0)


SPELLINGS: dict[str, Callable[[Shot], str]] = {
    "paths.txt": lambda shot: shot.path,
    "stems.txt": lambda shot: Path(shot.path).stem,
    "elsewhere.txt": lambda shot: f"seed0/{shot.class_name}/{Path(shot.path).name}",
    "labels.txt": lambda shot: f"{shot.path} {shot.class_id + 1}",
    "paths.csv": lambda shot: shot.path,
    "labels.csv": lambda shot: f'{shot.path},"{shot.class_name}"',
}
HEADERS = {"paths.csv": "path\n", "labels.csv": "path,label\n"}


@pytest.mark.parametrize("name", SPELLINGS)
def test_shots_can_be_those_of_another_paper(name: str, birds: Dataset, tmp_path: Path) -> None:
    """However it spells the paths; validation and test are drawn around them."""
    pool = [shot for shot in birds.split(shots=17, val=1, seed=5) if shot.split != "test"]
    chosen = [shot for k in range(4) for shot in [s for s in pool if s.class_id == k][-3:]]  # the val image among them
    file = tmp_path / name
    file.write_text(HEADERS.get(name, "") + "".join(f"{SPELLINGS[name](shot)}\n" for shot in chosen))
    split = _split_file.read(file, birds, val=6, seed=0)
    parts = {s: [shot.path for shot in split if shot.split == s] for s in ("train", "val", "test")}
    assert parts["train"] == [shot.path for shot in chosen]
    assert sizes(split) == {(c, s): n for c in birds.class_names for s, n in (("train", 3), ("val", 6), ("test", 4))}
    assert all(set(a).isdisjoint(b) for a, b in itertools.combinations(parts.values(), 2))
    cell = pipeline.split(
        Run(dataset=f"cub:{birds.root}", method="bob", splits=str(file)),
        Store(str(tmp_path / "out")),  # type: ignore[attr-defined]
    )
    assert cell.run.shots == 3
    assert [shot.path for shot in cell.training.shots] == parts["train"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("{0}\n{0}\n", "lists .* more than once"),
        ("{0}\n", "lists no picture of class 'Laysan Albatross'"),
        ("{0}\nnowhere.jpg\n", "lists 'nowhere.jpg', but of the training pictures of cub there is none"),
        ("{0}\n{test}\n", "which is no training picture of cub"),
        ("{0} 7\n{1} 7\n", "the label '7', as it gives pictures of another class"),
    ],
)
def test_a_list_of_shots_that_cannot_be_is_refused(lines: str, reason: str, birds: Dataset, tmp_path: Path) -> None:
    split = birds.split(shots=1, val=1, seed=0)
    first, second = (shot.path for shot in split[:2])
    test = next(shot.path for shot in split if shot.split == "test")
    (tmp_path / "list.txt").write_text(lines.replace("{test}", test).format(first, second))
    with pytest.raises(ValueError, match=reason):
        _split_file.read(tmp_path / "list.txt", birds, val=1, seed=0)


def test_names_that_several_pictures_have_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name, n in itertools.product(("a", "b"), range(4)):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 5), (n, ord(name), 0)).save(tmp_path / "set" / name / f"{n}.png")
    loaded = datasets.load(f"folder:{tmp_path / 'set'}")
    (tmp_path / "list.txt").write_text("theirs/b/2.png\ntheirs/a/1.png\n")
    split = _split_file.read(tmp_path / "list.txt", loaded, val=1, seed=0)
    assert [shot.path for shot in split if shot.split == "train"] == ["a/1.png", "b/2.png"]
    (tmp_path / "list.txt").write_text("2.png\n")
    with pytest.raises(ValueError, match="2 pictures are called that: give more of its path"):
        _split_file.read(tmp_path / "list.txt", loaded, val=1, seed=0)


def test_shots_that_contradict_the_split_are_refused(birds: Dataset, tmp_path: Path) -> None:
    file = published(birds, tmp_path / "s.parquet")
    run = Run(dataset=f"cub:{birds.root}", method="bob", splits=str(file), shots=4)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=re.escape(f"{file} gives 5 shots per class, not 4: leave --shots out")):
        pipeline.split(run, Store(str(tmp_path / "out")))
