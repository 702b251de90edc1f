"""Da-fusion: textual inversion of each class, then image to image from its shots with the new token.

Trabucco et al., ICLR 2024 (arXiv:2302.07944), the authors' scripts. Tuned: only one new token per class, in one of
27 templates at random ("a photo of a {}", "a rendering of a {}" ...), 1,000 steps per token at batch 4 and learning
rate 2e-3 (5e-4 x 4), constant; images mirrored with probability 1/2. Drawn: image to image under "a photo of a
<class>", guidance 7.5, 50 steps of the checkpoint's sampler; strengths 0.25, 0.5, 0.75 and 1.0 in turn, so that each
shot has each strength equally often; hard labels.
Departs: a token is initialised with the mean of its class name's embeddings, as in the authors' published variant,
where the script starts from "the"; all classes train in one process, four images of each of 16 classes per step, which
is equivalent, since each token has its own gradient and Adam state; a shot is cropped at random, not squashed; every
synthetic image is in the training set, where the paper replaces a real image by a synthetic one with probability 0.5.
BOB's Table 1 has Da-fusion on SD 2.1-base.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import (
    DrawSettings,
    FinetuneSettings,
    Method,
    Request,
    Token,
    TrainingSet,
    TrainPair,
    Tuning,
    of_class,
    require_parts,
)

__all__ = ["method"]

_TEMPLATES = (
    *("a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}"),
    *("a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}"),
    *("a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}", "a cropped photo of a {}"),
    *("a photo of the {}", "a good photo of the {}", "a photo of one {}", "a close-up photo of the {}"),
    *("a rendition of the {}", "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}"),
    *("a good photo of a {}", "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}"),
    *("a photo of the large {}", "a photo of a cool {}", "a photo of a small {}"),
)
"""Prompt templates of textual inversion, arXiv:2208.01618."""


@final
@dataclass(frozen=True, kw_only=True)
class DaFusion(Method):
    """One learnt token per class, and image to image at several strengths."""

    paper: ClassVar[str] = "arXiv:2302.07944"
    title: ClassVar[str] = "Da-fusion"
    summary: ClassVar[tuple[str, str]] = ("class tokens", "from a shot of the class, four strengths")
    guidance: ClassVar[float] = 7.5
    finetune: ClassVar[FinetuneSettings | None] = FinetuneSettings(epochs=1_000, batch=64, lr=2e-3, warmup_steps=0)
    finetune_mini: ClassVar[FinetuneSettings | None] = FinetuneSettings(epochs=300, batch=40, lr=2e-2, warmup_steps=0)

    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Parts of the noise schedule that are run, in (0, 1], in turn."""
    vectors: int = 1
    """Embeddings per token (the published variant: 4)."""

    def __post_init__(self) -> None:
        require_parts("strengths", *self.strengths)
        if self.vectors < 1:
            raise ValueError(f"vectors must be positive, got {self.vectors}")

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """Each shot with its class's token."""
        return [TrainPair(image_id=shot.image_id, prompt=_token(shot.class_id)) for shot in training.shots]

    def tuning(self, training: TrainingSet) -> Tuning:
        """A token for each class."""
        names = training.class_names
        return Tuning(
            unet=False,
            text_encoder=False,
            tokens=tuple(Token(name=_token(k), begins_as=name, vectors=self.vectors) for k, name in enumerate(names)),
            templates=_TEMPLATES,
            schedule="constant",
            flip=True,
            each=4,
        )

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class: all its shots at the first strength, then at the next."""
        for class_id, shots in enumerate(of_class(training)):
            for index in range(self.asked(training, class_id)):
                lap, row = divmod(index, len(shots))
                yield self.request(
                    training,
                    class_id=class_id,
                    index=index,
                    prompt=f"a photo of a {_token(class_id)}",
                    draw=draw,
                    seed=seed,
                    kind="img2img",
                    source_ids=(shots[row].image_id,),
                    strength=self.strengths[lap % len(self.strengths)],
                )


def _token(class_id: int) -> str:
    return f"<class_{class_id}>"


method = DaFusion()
