"""RealGuidance: image to image at low strength from a shot of the class, without fine-tuning.

He et al., ICLR 2023 (arXiv:2210.07574). Tuned: nothing. Drawn: image to image from a shot of the class under
"a photo of a {class}", each shot equally often; guidance 7.5, 50 steps of the checkpoint's sampler; hard labels.
Strength by the number of shots, as the paper's few-shot recipe noises to step k of 100: 0.15, 0.20, 0.35, 0.40 and 0.50
for 16, 8, 4, 2 and 1 shots; other numbers use the nearest, so 0.35 at 5 and 0.20 at 10.
Departs: Stable Diffusion (2.1-base in BOB's Table 1) for GLIDE, with its usual guidance for GLIDE's 3.0; BOB's
classifier for a linear head on CLIP features. The CLIP filter belongs to the paper's zero-shot recipe, so it is off
by default: it keeps images whose CLIP probability of their own class is above chance, and tops up with the best of
the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from bob.methods import DrawSettings, Filter, Method, Request, TrainingSet, TrainPair, of_class, require_parts

__all__ = ["method"]

_STRENGTHS = {1: 0.50, 2: 0.40, 4: 0.35, 8: 0.20, 16: 0.15}
"""Shots of the class -> strength."""


@final
@dataclass(frozen=True, kw_only=True)
class RealGuidance(Method):
    """Image to image with the unchanged checkpoint."""

    paper: ClassVar[str] = "arXiv:2210.07574"
    title: ClassVar[str] = "RealGuidance"
    summary: ClassVar[tuple[str, str]] = ("nothing", "from a shot of the class, little noise")
    guidance: ClassVar[float] = 7.5

    strength: float = 0.0
    """Part of the noise schedule to run, in (0, 1]; 0: by the number of shots."""
    filter: Literal["on", "off"] = "off"
    """Whether images with low CLIP scores are dropped."""

    def __post_init__(self) -> None:
        if self.strength:
            require_parts("strength", self.strength)

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """No pairs."""
        return []

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """The budget's images of each class, from its shots in turn."""
        for class_id, shots in enumerate(of_class(training)):
            nearest = min(_STRENGTHS, key=lambda listed: abs(listed - len(shots)))  # on a tie the fewer shots
            for index in range(self.asked(training, class_id)):
                yield self.request(
                    training,
                    class_id=class_id,
                    index=index,
                    prompt=_prompt(training.class_names[class_id]),
                    draw=draw,
                    seed=seed,
                    kind="img2img",
                    source_ids=(shots[index % len(shots)].image_id,),
                    strength=self.strength or _STRENGTHS[nearest],
                )

    def filtered(self, training: TrainingSet) -> Filter | None:
        """Images whose own class has a CLIP probability above chance are kept."""
        if self.filter == "off":
            return None
        names = training.class_names
        return Filter(texts=tuple(map(_prompt, names)), own=True, least=1 / len(names), surplus=0.25)


def _prompt(name: str) -> str:
    return f"a photo of a {name}"


method = RealGuidance()
