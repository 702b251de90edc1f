"""Diff-Mix: image to image from a shot of any class to a target class, with a mixed label.

Wang et al., CVPR 2024 (arXiv:2403.19600). Tuned: U-Net LoRA and class tokens, see `_diff_mix.py`. Drawn:
image to image under the target class's prompt, from a shot of a class drawn uniformly and independently of the target
(few-shot), or from any shot of the whole set (long tail); strength 0.7, DPM-Solver++ 25 steps, guidance 7.5. Label:
(1 - s^gamma) of the source's class, s^gamma of the target's, gamma 0.5 (the authors' advice: 0.5 or 0.8). Filtered:
the tenth of all images whose CLIP probability of showing the superclass is lowest is dropped. No MixUp.

Departs: sources are sampled per target, so that every class gets 100 images, and 12 % more are drawn to
leave 100 after the filter; the filter's captions are spelled right; labels sum to 1, where the script scales
few-shot ones to 0.9. BOB's Table 1 has Diff-Mix on SD 1.5.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from bob.methods import DrawSettings, Filter, Request, Shot, TrainingSet, derive, of_class, require_parts
from bob.methods._diff_mix import DiffMixWeights

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class DiffMix(DiffMixWeights):
    """Foreground of one class in the background of another."""

    paper: ClassVar[str] = "arXiv:2403.19600"
    title: ClassVar[str] = "Diff-Mix"
    summary: ClassVar[tuple[str, str]] = ("U-Net LoRA, class tokens", "from a shot of any class, shared label")
    mixup: ClassVar[bool] = False

    strength: float = 0.7
    """Part of the noise schedule to run, in (0, 1]."""
    gamma: float = 0.5
    """Exponent of the label; below 1 the target's weight is above the strength."""
    filter: Literal["on", "off"] = "on"
    """Whether the tenth with the lowest CLIP scores is dropped."""

    def __post_init__(self) -> None:
        require_parts("strength", self.strength)
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each target class plus the filter's surplus, each from its own random source."""
        classes = of_class(training)
        long_tail = len({len(shots) for shots in classes}) > 1
        for class_id in range(len(classes)):
            for index in range(self.asked(training, class_id)):
                rng = random.Random(derive("source", training.dataset, seed, class_id, index))
                pool = training.shots if long_tail else classes[int(rng.random() * len(classes))]
                source: Shot = pool[int(rng.random() * len(pool))]
                yield self.request(
                    training,
                    class_id=class_id,
                    index=index,
                    prompt=self.prompt(training, class_id),
                    draw=draw,
                    seed=seed,
                    kind="img2img",
                    source_ids=(source.image_id,),
                    strength=self.strength,
                    **self._label(source.class_id, class_id),
                )

    def filtered(self, training: TrainingSet) -> Filter | None:
        """The tenth that CLIP rates least likely to show the superclass is dropped."""
        if self.filter == "off":
            return None
        texts = tuple(f"a photo {word} a {training.superclass} on it" for word in ("with", "without"))
        return Filter(texts=texts, own=False, drop=0.1, surplus=0.12)

    def _label(self, source: int, target: int) -> dict[str, tuple[float, ...]]:
        """y = (1 - s^gamma) e_source + s^gamma e_target."""
        share = self.strength**self.gamma
        if source == target or share == 1:
            return {"label_ids": (target,), "label_weights": (1.0,)}
        return {"label_ids": (source, target), "label_weights": (1 - share, share)}


method = DiffMix()
