"""Diff-Aug: image to image from a shot of the same class, with the Diff-Mix weights.

Wang et al., CVPR 2024 (arXiv:2403.19600). Tuned: U-Net LoRA and class tokens, see `_diff_mix.py`. Drawn:
image to image from a shot of the same class at strength 0.7 (the authors' README and advice; their script
has 0.8) under "a photo of a <class> {superclass}", DPM-Solver++ 25 steps, guidance 7.5; hard labels.
Departs: each shot is used equally often, 100 / n times, where the script draws it at random.
BOB's Table 1 has Diff-Aug on SD 1.5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import DrawSettings, Request, TrainingSet, of_class, require_parts
from bob.methods._diff_mix import DiffMixWeights

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class DiffAug(DiffMixWeights):
    """Image to image within a class."""

    paper: ClassVar[str] = "arXiv:2403.19600"
    title: ClassVar[str] = "Diff-Aug"
    summary: ClassVar[tuple[str, str]] = ("U-Net LoRA, class tokens", "from a shot of the class")

    strength: float = 0.7
    """Part of the noise schedule to run, in (0, 1]."""

    def __post_init__(self) -> None:
        require_parts("strength", self.strength)

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class, from its shots in turn."""
        for class_id, shots in enumerate(of_class(training)):
            for index in range(self.asked(training, class_id)):
                yield self.request(
                    training,
                    class_id=class_id,
                    index=index,
                    prompt=self.prompt(training, class_id),
                    draw=draw,
                    seed=seed,
                    kind="img2img",
                    source_ids=(shots[index % len(shots)].image_id,),
                    strength=self.strength,
                )


method = DiffAug()
