"""BOB: each class is learnt in its own context and drawn in the contexts of all classes.

Yang et al., CVPR 2026 (arXiv:2510.24078). Tuned (sec. 3.1, context preservation): rank-16 LoRA on
U-Net and text encoder, each image under its own class, background and pose. Drawn (sec. 3.2, context
marginalisation): (background, pose) pairs sampled uniformly from the caption bank of the whole data
set, regardless of class, so that the drawn set follows P(X | do(Y)). The two switches are Table 3's.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from bob.methods import DrawSettings, Method, Request, TrainingSet, TrainPair, class_prompt, context_prompt, derive

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class Bob(Method):
    """Context preservation and context marginalisation."""

    paper: ClassVar[str] = "arXiv:2510.24078"
    title: ClassVar[str] = "BOB"
    summary: ClassVar[tuple[str, str]] = ("LoRA, own contexts", "from noise, contexts of all classes")
    needs_captions: ClassVar[bool] = True

    preservation: Literal["on", "off"] = "on"
    """Fine-tune on the image's own context (`on`) or on the bare class prompt (`off`)."""
    marginalisation: Literal["dataset", "class", "none"] = "dataset"
    """Draw in contexts of the whole data set, of the class's own images, or in no context."""

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """Each shot with its own caption: context preservation."""
        return [
            TrainPair(
                image_id=shot.image_id,
                prompt=context_prompt(training.descriptor, shot.class_name, training.contexts[shot.image_id])
                if self.preservation == "on"
                else class_prompt(training.descriptor, shot.class_name),
            )
            for shot in training.shots
        ]

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class, each in a context sampled with replacement from the caption bank."""
        for class_id, name in enumerate(training.class_names):
            rows = self._bank_rows(training, class_id)
            for index in range(self.asked(training, class_id)):
                prompt, sampled = class_prompt(training.descriptor, name), {}
                if rows:
                    uniform = random.Random(derive("context", training.dataset, seed, class_id, index)).random()
                    row = rows[int(uniform * len(rows))]
                    context = training.contexts[training.shots[row].image_id]
                    prompt = context_prompt(training.descriptor, name, context)
                    sampled = {"background": context.background, "pose": context.pose, "bank_row": row}
                yield self.request(
                    training, class_id=class_id, index=index, prompt=prompt, draw=draw, seed=seed, **sampled
                )

    def _bank_rows(self, training: TrainingSet, class_id: int) -> list[int]:
        """Rows of the caption bank (one per shot, in the shots' order) that the class may be drawn in."""
        if self.marginalisation == "none":
            return []
        return [
            row
            for row, shot in enumerate(training.shots)
            if self.marginalisation == "dataset" or shot.class_id == class_id
        ]


method = Bob()
