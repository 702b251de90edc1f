"""Skyworld with a long tail; `skyworld_lt:10` has imbalance factor 10. Runs Table 2 on a laptop.

Diff-Mix's formula with a mean of 18 where CUB-LT has 30, so that IF 100 and 50 leave most classes one image. The
confounding of skyworld may follow: `skyworld_lt:10:0.5`.
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
    """Skyworld with the training shots of each class cut to a long tail."""

    world: Dataset
    factor: int

    def split(self, *, shots: int, val: int, seed: int) -> tuple[Shot, ...]:
        """Skyworld's val and test images, and the first shots of each class.

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
        """See `Skyworld.training_side`; not cut to the long tail."""
        return self.world.training_side(most=most, seed=seed, without=without)

    def facts(self, path: str) -> tuple[str, int, int]:
        """See `Skyworld.facts`."""
        return self.world.facts(path)

    def open(self, shot: Shot) -> "Image.Image":
        """See `Skyworld.open`."""
        return self.world.open(shot)


def dataset(argument: str) -> SkyworldLT:
    """Skyworld with the imbalance factor (default 100) and the confounding in `argument`.

    Raises:
        ValueError: if one of them is out of range.
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
