"""Contract of every data set, and skyworld's confounding. `folder:` has its own file, test_folder.py."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bob import datasets
from bob.core import registry
from bob.core.types import Shot
from bob.datasets import Dataset
from bob.datasets._skyworld import BACKGROUNDS, NOVEL, POSES


def _toy_folder(tmp_path: Path) -> str:
    for k, name in enumerate(("Amanita_muscaria", "Boletus edulis", "Cantharellus")):
        (tmp_path / name).mkdir()
        for n in range(30):
            Image.new("RGB", (6, 5), (k, n, 0)).save(tmp_path / name / f"{n}.png")
    return f"folder:{tmp_path}"


TOYS: dict[str, Callable[[Path], str]] = {"skyworld": lambda _: "skyworld", "folder": _toy_folder}
"""Data sets that need nobody's files: how each is called."""


@pytest.fixture(params=sorted(TOYS))
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    return datasets.load(TOYS[request.param](tmp_path))


def _part(shots: tuple[Shot, ...], split: str) -> list[Shot]:
    return [shot for shot in shots if shot.split == split]


def _context(shot: Shot) -> tuple[str, str]:
    _, background, pose, _ = shot.path.split("|")
    return background, pose


# -- every data set -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_missing_files_are_the_users_to_fix(name: str) -> None:
    """A ValueError in words, at the latest when the split is asked for."""
    with pytest.raises(ValueError, match="no/such/place"):
        datasets.load(f"{name}:/no/such/place").split(shots=1, val=1, seed=0)


def test_an_unknown_data_set_says_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"unknown dataset 'skyword'.*Did you mean 'skyworld'\?"):
        datasets.load("skyword:0.5")


def test_the_split_is_ordered_and_complete(toy: Dataset) -> None:
    split = toy.split(shots=3, val=4, seed=0)
    order = [(("train", "val", "test").index(shot.split), shot.class_id) for shot in split]
    assert order == sorted(order)
    counts = Counter((shot.split, shot.class_id) for shot in split)
    for class_id in range(len(toy.class_names)):
        assert (counts["train", class_id], counts["val", class_id]) == (3, 4)
        assert counts["test", class_id] > 0
    assert all(shot.class_name == toy.class_names[shot.class_id] for shot in split)
    assert len({shot.image_id for shot in split}) == len({shot.path for shot in split}) == len(split)


def test_fewer_shots_are_part_of_more(toy: Dataset) -> None:
    five, ten = (toy.split(shots=n, val=6, seed=1) for n in (5, 10))
    assert set(_part(five, "train")) < set(_part(ten, "train"))
    assert _part(five, "val") == _part(ten, "val")
    assert _part(five, "test") == _part(ten, "test")
    for class_id in range(len(toy.class_names)):
        few, many = ([s for s in _part(split, "train") if s.class_id == class_id] for split in (five, ten))
        assert many[:5] == few


def test_a_split_is_the_seeds(toy: Dataset) -> None:
    assert toy.split(shots=2, val=2, seed=5) == toy.split(shots=2, val=2, seed=5)
    assert _part(toy.split(shots=2, val=2, seed=5), "train") != _part(toy.split(shots=2, val=2, seed=6), "train")


def test_pictures_open_as_rgb(toy: Dataset) -> None:
    for shot in toy.split(shots=1, val=1, seed=0)[:: 1 + 7 * len(toy.class_names)]:
        picture = toy.open(shot)
        assert (picture.mode, picture.size) == ("RGB", (shot.width, shot.height))


def test_the_descriptor_can_be_replaced(toy: Dataset) -> None:
    other = dataclasses.replace(toy, descriptor="mushroom")
    assert other.descriptor == "mushroom"
    assert other.split(shots=1, val=1, seed=0) == toy.split(shots=1, val=1, seed=0)


@pytest.mark.parametrize(("shots", "val", "what"), [(0, 1, "shots"), (-1, 1, "shots"), (1, 0, "val")])
def test_numbers_that_no_split_has_are_refused(toy: Dataset, shots: int, val: int, what: str) -> None:
    with pytest.raises(ValueError, match=f"{what} is a number of images per class, 1 or more, got"):
        toy.split(shots=shots, val=val, seed=0)


# -- skyworld -----------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["1.5", "-0.1", "nan", "inf", "abc", "0.5,", "0:5", " "])
def test_the_confounding_lies_between_0_and_1(argument: str) -> None:
    message = f"skyworld takes its confounding, a number from 0 to 1, got '{argument}': write skyworld:0.8"
    with pytest.raises(ValueError, match=message):
        datasets.load(f"skyworld:{argument}")


def test_the_confounding_is_four_fifths_unless_told() -> None:
    assert datasets.load("skyworld").split(shots=4, val=1, seed=0) == datasets.load("skyworld:0.8").split(
        shots=4, val=1, seed=0
    )
    assert datasets.load("skyworld").name == "skyworld"
    assert datasets.load("skyworld:.5").name == "skyworld:.5"


@pytest.mark.parametrize("seed", range(5))
def test_fully_confounded_each_class_has_one_context(seed: int) -> None:
    homes: dict[int, set[tuple[str, str]]] = {}
    for shot in _part(datasets.load("skyworld:1").split(shots=20, val=1, seed=seed), "train"):
        homes.setdefault(shot.class_id, set()).add(_context(shot))
    assert all(len(contexts) == 1 for contexts in homes.values())
    home = [next(iter(homes[class_id])) for class_id in range(len(NOVEL))]
    assert len({background for background, _ in home}) == len(NOVEL)
    for k in range(0, len(NOVEL), 2):
        assert home[k][0] != home[k + 1][0]
        assert home[k][1] != home[k + 1][1]


def test_homes_change_with_the_seed() -> None:
    one, other = (
        [_context(s) for s in _part(datasets.load("skyworld:1").split(shots=1, val=1, seed=seed), "train")]
        for seed in (0, 1)
    )
    assert one != other


@pytest.mark.parametrize("confounding", [0.0, 0.3, 0.8])
def test_the_dial_is_a_probability(confounding: float) -> None:
    """Shares of home backgrounds and poses within 4 standard errors, and independent of each other."""
    train = {
        c: _part(datasets.load(f"skyworld:{c}").split(shots=200, val=1, seed=3), "train") for c in (1.0, confounding)
    }
    hits = [
        [a == b for a, b in zip(_context(shot), _context(home), strict=True)]
        for shot, home in zip(train[confounding], train[1.0], strict=True)
    ]
    for place, options in ((0, BACKGROUNDS), (1, POSES)):
        expected = confounding + (1 - confounding) / len(options)
        error = (expected * (1 - expected) / len(hits)) ** 0.5
        assert sum(hit[place] for hit in hits) / len(hits) == pytest.approx(expected, abs=4 * error)
    both = (confounding + (1 - confounding) / 12) * (confounding + (1 - confounding) / 6)
    error = (both * (1 - both) / len(hits)) ** 0.5
    assert sum(all(hit) for hit in hits) / len(hits) == pytest.approx(both, abs=4 * error)


def test_unconfounded_contexts_are_uniform() -> None:
    train = _part(datasets.load("skyworld:0").split(shots=432, val=1, seed=0), "train")
    counts = Counter(_context(shot) for shot in train)
    expected = len(train) / 72
    chi2 = sum((counts[b, p] - expected) ** 2 / expected for b in BACKGROUNDS for p in POSES)
    assert chi2 < 121  # 71 degrees of freedom: one in ten thousand lies above


def test_more_confounding_moves_shots_home_only() -> None:
    splits = [_part(datasets.load(f"skyworld:{c}").split(shots=40, val=1, seed=0), "train") for c in (0.2, 0.6, 1.0)]
    for low, high, home in zip(*splits, strict=True):
        for a, b, c in zip(_context(low), _context(high), _context(home), strict=True):
            assert b in (a, c)


def test_every_test_context_comes_once_per_class_whatever_the_run() -> None:
    test = _part(datasets.load("skyworld:0").split(shots=1, val=1, seed=0), "test")
    assert len(test) == 720
    everywhere = {(class_id, b, p) for class_id in range(10) for b in BACKGROUNDS for p in POSES}
    assert {(shot.class_id, *_context(shot)) for shot in test} == everywhere
    assert test == _part(datasets.load("skyworld:1").split(shots=7, val=3, seed=9), "test")


@pytest.mark.parametrize("val", [12, 16, 24, 72, 100])
def test_val_contexts_are_balanced(val: int) -> None:
    shots = _part(datasets.load("skyworld:1").split(shots=1, val=val, seed=2), "val")
    assert shots == _part(datasets.load("skyworld:0").split(shots=5, val=val, seed=2), "val")
    for class_id in range(10):
        contexts = [_context(shot) for shot in shots if shot.class_id == class_id]
        for options, place in ((BACKGROUNDS, 0), (POSES, 1)):
            counts = Counter(context[place] for context in contexts)
            assert max(counts.values()) - min(counts[option] for option in options) <= 1
        assert len(set(contexts)) == min(val, 72)


def test_no_picture_is_in_two_splits() -> None:
    split = datasets.load("skyworld").split(shots=10, val=16, seed=0)
    assert len({shot.path.rpartition("|")[2] for shot in split}) == len(split)  # the nuisance seeds
    assert len({shot.sha1 for shot in split}) == len(split)


def test_a_recipe_never_changes() -> None:
    split = datasets.load("skyworld").split(shots=2, val=2, seed=0)
    digest = hashlib.sha1("\n".join(f"{shot.image_id} {shot.path}" for shot in split).encode()).hexdigest()
    assert digest == "d6f95a9580be3bb306356c30f40339378962cdf2"


@pytest.mark.parametrize(
    "path", ["", "a/b.png", "skyworld:Zephyr|pink dawn|level left", "skyworld:Zephyr|pink dawn|level left|x"]
)
def test_what_is_no_recipe_is_not_opened(path: str) -> None:
    world = datasets.load("skyworld")
    shot = dataclasses.replace(world.split(shots=1, val=1, seed=0)[0], path=path)
    with pytest.raises(ValueError, match=r"is no recipe of skyworld: wanted 'skyworld:CLASS\|"):
        world.open(shot)
