"""Skyworld: the embedded data set of ten rendered aircraft classes with adjustable confounding.

It is the causal graph of the paper (Figure 2) with one parameter: how strongly class and context
are correlated in the training shots. Val and test always have uniform contexts.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from bob.core.seeds import derive
from bob.core.types import Shot
from bob.datasets import Dataset, check_split
from bob.datasets._skyworld import BACKGROUNDS, DESCRIPTOR, NOVEL, POSES

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SIDE", "Skyworld", "dataset"]

SIDE = 32
"""Side in pixels of a picture, the input size of the mini models."""

_CONFOUNDING = 0.8
_MOST = 1_000  # shots or val images per class
_RENDER_VERSION = 1
"""Bump it when `_render` draws other pixels from the same recipe, or SIDE changes."""


@final
@dataclass(frozen=True, kw_only=True)
class Skyworld(Dataset):
    """The ten novel classes of `_skyworld`; a picture is a recipe that is rendered when opened."""

    confounding: float
    """In [0, 1]: the probability that a training shot has its class's home background, and,
    independently, its home pose; uniform otherwise. 0: context is independent of class. 1: each
    class is seen in one context."""

    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """The few-shot split: drawn contexts in train, balanced ones in val, all 72 once per class in test.

        Shots and val depend on the seed; the test set, as in a published data set, does not.
        Neither val nor test depends on `shots` or on the confounding. A shot with its class's home
        context at one confounding has it at any higher one.

        Raises:
            ValueError: if `shots` or `val` is not positive, or one is above 1,000.
        """
        check_split(shots=shots, val=val)
        if max(shots, val) > _MOST:
            raise ValueError(f"skyworld gives at most {_MOST:,} shots or val images per class, got {max(shots, val)}")
        classes = range(len(self.class_names))
        train = self.training_side(most=shots, seed=seed, without=())
        balanced = {"val": (val, seed), "test": (len(BACKGROUNDS) * len(POSES), None)}
        rest = [
            self._shot(part, key, c, k, _balanced_context(c, k, seed=key))
            for part, (count, key) in balanced.items()
            for c in classes
            for k in range(count)
        ]
        return (*train, *rest)

    def training_side(self, *, most: int, seed: int, without: Collection[str]) -> tuple[Shot, ...]:
        """`most` shots per class, at most 1,000, their contexts as confounded as those of the split's shots."""
        classes = range(len(self.class_names))
        return tuple(
            self._shot("train", seed, c, k, self._train_context(seed, c, k)) for c in classes for k in range(most)
        )

    def facts(self, path: str) -> tuple[str, int, int]:
        """SHA-1 of the recipe and the renderer's version; SIDE and SIDE.

        Raises:
            ValueError: if `path` is no recipe.
        """
        _recipe(path)
        return hashlib.sha1(f"{path}|{_RENDER_VERSION}".encode()).hexdigest(), SIDE, SIDE

    def open(self, shot: Shot) -> "Image.Image":
        """Renders the shot's recipe: RGB, SIDE x SIDE pixels.

        Raises:
            ValueError: if `shot.path` is no recipe, or names a class, background or pose that does not exist.
        """
        from bob.datasets._render import render

        name, background, pose, seed = _recipe(shot.path)
        return render(name, background, pose, seed=int(seed), size=SIDE)

    def _train_context(self, seed: int, class_id: int, rank: int) -> tuple[str, str]:
        key = derive("skyworld", "shot", seed, class_id, rank)
        home_background, home_pose = _home(seed, class_id)
        return (
            home_background if _unit(key, "is background home") < self.confounding else _pick(BACKGROUNDS, key),
            home_pose if _unit(key, "is pose home") < self.confounding else _pick(POSES, key),
        )

    def _shot(self, split: str, seed: int | None, class_id: int, rank: int, context: tuple[str, str]) -> Shot:
        name = self.class_names[class_id]
        purpose = "shot" if split == "train" else split
        nuisance = derive(derive("skyworld", purpose, seed, class_id, rank), "nuisance")
        recipe = f"skyworld:{name}|{context[0]}|{context[1]}|{nuisance}"
        sha1, width, height = self.facts(recipe)
        return Shot(
            # The digest tells apart shots of the same rank at other confoundings and seeds.
            image_id=f"{split}-{class_id:02d}-{rank:04d}-{sha1[:8]}",
            sha1=sha1,
            path=recipe,
            class_id=class_id,
            class_name=name,
            split=split,
            width=width,
            height=height,
        )


def dataset(argument: str) -> Skyworld:
    """Skyworld with the confounding in `argument`, a number in [0, 1]; empty: 0.8.

    Raises:
        ValueError: if `argument` is no such number.
    """
    try:
        confounding = float(argument) if argument else _CONFOUNDING
    except ValueError:
        confounding = -1.0
    if not 0 <= confounding <= 1:
        raise ValueError(
            f"skyworld takes its confounding, a number from 0 to 1, got {argument!r}:"
            f" write skyworld:{_CONFOUNDING}, or skyworld alone for the same"
        )
    return Skyworld(
        name=f"skyworld:{argument}" if argument else "skyworld",
        descriptor=DESCRIPTOR,
        class_names=NOVEL,
        confounding=confounding,
    )


def _recipe(path: str) -> list[str]:
    """Class, background, pose and seed of a recipe."""
    head, _, recipe = path.partition(":")
    parts = recipe.split("|")
    if head != "skyworld" or len(parts) != 4 or not (parts[3].isascii() and parts[3].isdigit()):
        raise ValueError(
            f"{path!r} is no recipe of skyworld: wanted 'skyworld:CLASS|BACKGROUND|POSE|SEED'; was it made by"
            " another data set?"
        )
    return parts


def _home(seed: int, class_id: int) -> tuple[str, str]:
    """Home (background, pose) of a class. Taken from a shuffle, so siblings (2i, 2i + 1) never share either."""
    backgrounds = _shuffled(BACKGROUNDS, "home", seed)
    poses = _shuffled(POSES, "home", seed)
    return backgrounds[class_id % len(backgrounds)], poses[class_id % len(poses)]


def _balanced_context(class_id: int, rank: int, *, seed: int | None) -> tuple[str, str]:
    """Context `rank` of 72; the first 12, and each 12 after, have each background once and each pose twice."""
    backgrounds = _shuffled(BACKGROUNDS, "balanced", seed, class_id)
    poses = _shuffled(POSES, "balanced", seed, class_id)
    lap, place = divmod(rank, len(backgrounds))
    return backgrounds[place], poses[(place + lap) % len(poses)]


def _shuffled(options: tuple[str, ...], *coordinates: str | int | None) -> list[str]:
    return sorted(options, key=lambda option: derive("skyworld", *coordinates, option))


def _pick(options: tuple[str, ...], key: int) -> str:
    return options[int(_unit(key, "which", options[0]) * len(options))]


def _unit(*coordinates: str | int) -> float:
    """Uniform in [0, 1): 53 bits, so that it never rounds up to 1."""
    return (derive(*coordinates) >> 10) / 2**53
