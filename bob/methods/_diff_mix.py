"""Weights, prompts and sampler that Diff-Gen, Diff-Aug, Diff-Mix and Diff-II share.

Wang et al., CVPR 2024 (arXiv:2403.19600), the authors' training script: LoRA of rank 10 on the U-Net's attention and a
token for each class, initialised from the rare word "ktn"; images at 224 pixels, mirrored with probability 1/2; 35,000
steps at batch 8, learning rate 5e-5, constant; on a long tail all classes are sampled equally often. To AdamW a token
is a row of a dense table: one that a batch does not show goes on by its moments. One fine-tune serves all four
methods, since they ask for the same weights.

Departs: the weights that BOB's authors took over from Diff-II were trained in fp16 and are not published.
"""

from typing import ClassVar, final

from bob.methods import FinetuneSettings, Method, Token, TrainingSet, TrainPair, Tuning, of_class

__all__ = ["DiffMixWeights"]


class DiffMixWeights(Method):
    """A method that draws with the Diff-Mix weights."""

    scheduler: ClassVar[str] = "dpm"
    guidance: ClassVar[float] = 7.5
    steps: ClassVar[int] = 25
    finetune: ClassVar[FinetuneSettings | None] = FinetuneSettings(
        total_steps=35_000, batch=8, lr=5e-5, warmup_steps=0, rank=10
    )
    finetune_mini: ClassVar[FinetuneSettings | None] = FinetuneSettings(
        epochs=200, batch=25, lr=4e-3, warmup_steps=0, rank=4
    )

    @final
    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """Each shot with its class's token."""
        return [
            TrainPair(image_id=shot.image_id, prompt=self.prompt(training, shot.class_id)) for shot in training.shots
        ]

    @final
    def tuning(self, training: TrainingSet) -> Tuning:
        """U-Net LoRA and a token for each class."""
        long_tail = len({len(shots) for shots in of_class(training)}) > 1
        return Tuning(
            text_encoder=False,
            tokens=tuple(Token(name=_token(k), begins_as="ktn") for k in range(len(training.class_names))),
            dense_tokens=True,
            schedule="constant",
            side=224,
            flip=True,
            each=1 if long_tail else 0,
        )

    @staticmethod
    def prompt(training: TrainingSet, class_id: int) -> str:
        """`a photo of a <class_3> bird`."""
        return f"a photo of a {_token(class_id)} {training.superclass}"


def _token(class_id: int) -> str:
    return f"<class_{class_id}>"
