"""Skyworld with a long tail, `skyworld_lt:10` by its imbalance factor: Table 2's path on a laptop.

Diff-Mix's formula on a mean of 18 where CUB-LT has 30, so that IF 100 and 50 leave most classes one image. A
confounding may follow, `skyworld_lt:10:0.5`, as skyworld takes it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from bob import datasets
from bob.core.types import Shot
from bob.datasets import Dataset, _longtail

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SkyworldLT", "dataset"]

_MEAN = 18


@final
@dataclass(frozen=True, kw_only=True)
class SkyworldLT(Dataset):
    """The first of skyworld's shots of each class: as many as its place in the tail grants."""

    world: Dataset
    factor: int

    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """Skyworld's own val and test images, and of its shots the first ones of each class.

        Raises:
            ValueError: if `val` is not positive or above 1,000.
        """
        tail = _longtail.counts([_MEAN] * len(self.class_names), self.factor)
        rank = [0] * len(tail)
        kept = []
        for shot in self.world.split(shots=_MEAN, val=val, seed=seed):
            if shot.split == "train":
                rank[shot.class_id] += 1
            if shot.split != "train" or rank[shot.class_id] <= tail[shot.class_id]:
                kept.append(shot)
        return tuple(kept)

    def training_side(self, *, most: int, seed: int, without: Collection[str]) -> tuple[Shot, ...]:
        """As skyworld has it, the tail notwithstanding."""
        return self.world.training_side(most=most, seed=seed, without=without)

    def facts(self, path: str) -> tuple[str, int, int]:
        """As skyworld has them."""
        return self.world.facts(path)

    def open(self, shot: Shot) -> "Image.Image":
        """As skyworld renders it."""
        return self.world.open(shot)


def dataset(argument: str) -> SkyworldLT:
    """Skyworld with the imbalance factor, 100 if there is none, and the confounding that `argument` says.

    Raises:
        ValueError: if one of them is none.
    """
    factor, confounding = _longtail.argument("skyworld_lt", argument)
    world = datasets.load(f"skyworld:{confounding}")
    return SkyworldLT(
        name=f"skyworld_lt:{factor}" + (f":{confounding}" if confounding else ""),
        descriptor=world.descriptor,
        class_names=world.class_names,
        val=_longtail.VAL,
        medium=(3, 9),
        world=world,
        factor=factor,
    )
