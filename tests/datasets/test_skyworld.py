"""Skyworld's classes and renderer: what exists, and golden hashes of pictures."""

import dataclasses
import hashlib
import random

import numpy as np
import pytest

from bob.datasets._render import MASTER, render
from bob.datasets._skyworld import (
    BACKGROUNDS,
    BASE,
    NOVEL,
    POSES,
    Airframe,
    airframes,
    designation,
    unnamed,
)

# Raw RGB bytes. Whoever changes one bumps _RENDER_VERSION in bob/datasets/skyworld.py and
# trains the mini models again.
UNNAMED = "8827908aa195fed7c742f244a4e13018dc457b04"
GOLDEN = {
    ("Osprey", "clear blue sky", "level right", 0, 64): "17da3a7ac87481b5d587c928424cfa3d6045560e",
    ("Zephyr", "orange sunset", "climbing left", 1, 32): "50ed86365a6720f9a9295e15c1defa8e993cc9f6",
    ("Mistral", "city skyline", "descending right", 2, 32): "e69288294abfbf46db7220379836506e90bd9d69",
    ("Pampero", "snowy mountain", "level left", 2**63 - 1, 32): "68d5d2ea2dddca976be770a9ff81453d9af8061b",
}


def _differing(one: str, other: str) -> list[str]:
    a, b = (dataclasses.asdict(airframes()[name]) for name in (one, other))
    return [attribute for attribute in a if a[attribute] != b[attribute]]


@pytest.mark.parametrize(("recipe", "sha1"), GOLDEN.items())
def test_a_picture_never_changes(recipe: tuple[str, str, str, int, int], sha1: str) -> None:
    name, background, pose, seed, size = recipe
    picture = render(name, background, pose, seed=seed, size=size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    assert hashlib.sha1(picture.tobytes()).hexdigest() == sha1


def test_sixty_base_and_ten_novel_classes() -> None:
    assert (len(BASE), len(NOVEL), len(airframes())) == (60, 10, 70)
    assert tuple(airframes()) == BASE + NOVEL


@pytest.mark.parametrize("k", range(0, 70, 2))
def test_siblings_differ_in_exactly_one_attribute(k: int) -> None:
    names = BASE + NOVEL
    assert len(_differing(names[k], names[k + 1])) == 1
    others = [name for name in names if name not in names[k : k + 2]]
    assert min(len(_differing(names[k], other)) for other in others) > 1


def test_a_designation_spells_the_shape_and_nothing_else() -> None:
    draw = random.Random(0)
    spelled: dict[frozenset[str], set[Airframe]] = {}
    for k in range(2_000):
        letters = frozenset(designation(unnamed(k), draw)) - set("stuvwxyz")
        spelled.setdefault(letters, set()).add(unnamed(k))
    assert len(spelled) > 1_900
    assert all(len(shapes) == 1 for shapes in spelled.values())


def test_an_unnamed_aircraft_never_changes_and_can_be_drawn() -> None:
    picture = render(unnamed(7), "pink dawn", "level left", seed=0, size=32)
    assert hashlib.sha1(picture.tobytes()).hexdigest() == UNNAMED
    assert unnamed(7) not in airframes().values()


def test_every_class_looks_different() -> None:
    pictures = {name: render(name, "clear blue sky", "level right", seed=0, size=32).tobytes() for name in BASE + NOVEL}
    assert len(set(pictures.values())) == len(pictures)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_context_looks_different(background: str) -> None:
    pictures = [render("Zephyr", background, pose, seed=0, size=32) for pose in POSES]
    assert len({picture.tobytes() for picture in pictures}) == len(POSES)
    other = BACKGROUNDS[BACKGROUNDS.index(background) - 1]
    there = np.asarray(render("Zephyr", other, POSES[0], seed=0, size=32), dtype=float)
    assert np.abs(np.asarray(pictures[0], dtype=float) - there).mean() > 5


def test_the_seed_is_the_nuisance() -> None:
    one, again, other = (render("Bora", "open ocean", "level left", seed=s, size=32).tobytes() for s in (1, 1, 2))
    assert one == again != other


def test_the_master_is_what_the_small_one_is_averaged_from() -> None:
    master = np.asarray(render("Bora", "pink dawn", "level left", seed=3), dtype=float)
    small = np.asarray(render("Bora", "pink dawn", "level left", seed=3, size=32), dtype=float)
    assert master.shape == (MASTER, MASTER, 3)
    assert np.abs(master.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)) - small).max() <= 1


@pytest.mark.parametrize(
    ("what", "recipe"),
    [
        ("class 'Zephyrus'", ("Zephyrus", "pink dawn", "level left")),
        ("background 'pink'", ("Zephyr", "pink", "level left")),
        ("pose 'level'", ("Zephyr", "pink dawn", "level")),
    ],
)
def test_an_unknown_name_is_refused(what: str, recipe: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match=f"skyworld has no {what}; it has "):
        render(*recipe, seed=0)
