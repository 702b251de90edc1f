"""Diff-Gen: text to image with the Diff-Mix weights; that paper's baseline without source images.

Wang et al., CVPR 2024 (arXiv:2403.19600). Tuned: U-Net LoRA and class tokens, see `_diff_mix.py`. Drawn:
"a photo of a <class> {superclass}" from pure noise (strength 1), DPM-Solver++ 25 steps, guidance 7.5; hard labels.
Departs: 100 images per class, as BOB's comparison grants all methods, where the paper draws a multiple of the
training set. BOB's Table 1 has Diff-Gen on SD 1.5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import DrawSettings, Request, TrainingSet
from bob.methods._diff_mix import DiffMixWeights

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class DiffGen(DiffMixWeights):
    """Text to image with the class's token."""

    paper: ClassVar[str] = "arXiv:2403.19600"
    title: ClassVar[str] = "Diff-Gen"
    summary: ClassVar[tuple[str, str]] = ("U-Net LoRA, class tokens", "from noise, class tokens")

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class, all under the class's prompt."""
        for class_id in range(len(training.class_names)):
            prompt = self.prompt(training, class_id)
            for index in range(self.asked(training, class_id)):
                yield self.request(training, class_id=class_id, index=index, prompt=prompt, draw=draw, seed=seed)


method = DiffGen()
