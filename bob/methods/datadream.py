"""DataDream: LoRA on U-Net and text encoder with the bare class prompt, which also draws.

Kim et al., ECCV 2024 (arXiv:2407.10910). Tuned: rank-16 LoRA on all attention projections, one for
the whole data set. Drawn: text to image from noise, guidance 2.0, 50 steps, "a {descriptor} photo of
a {class}". Differs: 400 epochs at batch 80 instead of 200 at 8 a GPU, as BOB's comparison grants all
methods (paper Table 4); the noise of an image is keyed by its class and index, where DataDream's
script gives image i of every class the same noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import DrawSettings, Method, Request, TrainingSet, TrainPair, class_prompt

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class DataDream(Method):
    """One prompt for all images of a class, so class and context stay entangled."""

    paper: ClassVar[str] = "arXiv:2407.10910"
    title: ClassVar[str] = "DataDream"
    summary: ClassVar[tuple[str, str]] = ("LoRA, class prompts", "from noise, class prompts")

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """Each shot with its class's prompt."""
        return [
            TrainPair(image_id=shot.image_id, prompt=class_prompt(training.descriptor, shot.class_name))
            for shot in training.shots
        ]

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class, all under the class's prompt."""
        for class_id, name in enumerate(training.class_names):
            prompt = class_prompt(training.descriptor, name)
            for index in range(self.asked(training, class_id)):
                yield self.request(training, class_id=class_id, index=index, prompt=prompt, draw=draw, seed=seed)


method = DataDream()
