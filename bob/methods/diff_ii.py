"""Diff-II: circle interpolation between the inverted noise of two shots of a class.

Wang & Chen, CVPR 2025 (arXiv:2408.16266). Tuned: U-Net LoRA and class tokens as Diff-Mix, whose recipe the authors
refer to; see `_diff_mix.py`. Drawn: a uniformly random pair of the class's shots, DDIM inversion in 8 times as many
steps as sampling (200 for 25) at guidance 1, circle interpolation, then DDIM 25 steps at guidance 7.5. In the noisy
part of the schedule, `split`, the prompt ends with one of at most ten suffixes condensed from all captions. Hard
labels.

Departs: the captions are our own captioner's backgrounds, condensed by k-medoids, where the authors use BLIP and
GPT-4 (`suffixes/` in the output holds the list, which may be edited); angles in float32, where fp16 loses digits. A
class of one shot has no pair, and the authors' script fails on it: here its image is rotated towards random noise,
and the request names a single source. `split` follows the authors' folders if these name the data set, else it is
their code's 0.3. BOB's Table 1 has Diff-II on SD 1.5.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import DrawSettings, Request, TrainingSet, derive, of_class
from bob.methods._diff_mix import DiffMixWeights

__all__ = ["method"]

_SPLIT = {"aircraft": 1.0, "cub": 1.0, "cub_lt": 1.0, "cars": 0.3, "pets": 0.3, "flower_lt": 0.3}
"""Data set -> `split`, by the folders that the authors' script names; those of long tails are not published."""
_TEN_SHOTS = {"cars": 0.1, "pets": 0.1}
"""The same from 10 shots of a class on."""
_OTHERS = 0.3


@final
@dataclass(frozen=True, kw_only=True)
class DiffII(DiffMixWeights):
    """Interpolation and extrapolation of two shots."""

    paper: ClassVar[str] = "arXiv:2408.16266"
    title: ClassVar[str] = "Diff-II"
    summary: ClassVar[tuple[str, str]] = ("U-Net LoRA, class tokens", "on the circle through two inverted shots")
    needs_captions: ClassVar[bool] = True
    needs_suffixes: ClassVar[bool] = True
    scheduler: ClassVar[str] = "ddim"

    split: float = -1.0
    """Part of the schedule that uses the suffix, in [0, 1]; below 0: the authors' value for the data set."""

    def __post_init__(self) -> None:
        if self.split > 1:
            raise ValueError(f"split is a part of the noise schedule, at most 1, got {self.split}")

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class, each from a pair of its shots, uniform with replacement."""
        for class_id, shots in enumerate(of_class(training)):
            prefix = self.prompt(training, class_id)
            for index in range(self.asked(training, class_id)):
                rng = random.Random(derive("circle", training.dataset, seed, class_id, index))
                suffix = training.suffixes[int(rng.random() * len(training.suffixes))]
                first = int(rng.random() * len(shots))
                other = (first + 1 + int(rng.random() * (len(shots) - 1))) % len(shots)
                yield self.request(
                    training,
                    class_id=class_id,
                    index=index,
                    prompt=f"{prefix} {suffix}",
                    background=suffix,
                    draw=draw,
                    seed=seed,
                    kind="circle",
                    source_ids=tuple(shots[k].image_id for k in sorted({first, other})),
                    switch_at=self._split(training, len(shots)),
                )

    def _split(self, training: TrainingSet, shots: int) -> float:
        if self.split >= 0:
            return self.split
        name = training.dataset.partition(":")[0]
        return _TEN_SHOTS.get(name, 1.0) if shots >= 10 and name in _TEN_SHOTS else _SPLIT.get(name, _OTHERS)


method = DiffII()
