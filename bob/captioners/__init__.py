"""Captioners: one file each, holding `captioner`, a `Loader`.

    bob/captioners/x.py:   captioner = Loader(load=..., revision=...)

The argument is what the user wrote after the first colon (`qwen_vl:7b`); it may be empty.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bob.core import registry

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["NAMING", "QUESTIONS", "Answer", "Captioner", "Loader", "Recognition", "load", "revision"]

QUESTIONS = {
    about: f"describe the {about} of the {{d}} in as few words as possible. Refer to the {{d}} as simply 'a {{d}}'."
    for about in ("background", "pose")
}
"""What is asked for -> the paper's question (sec. 3.1), `{d}` standing for the descriptor.

The article is always `a`, the first letter is small, as printed. No class name is in it: a captioner
that knows the class would write it into the context, which is to be sampled without it.
"""

NAMING = "Which of these is the {d}: {names}? Answer with the exact name and nothing else."
"""What is asked to see whether a captioner knows the classes (Figure 5); the paper does not print its question.

`{names}` stands for all class names with semicolons between them, `{d}` for the descriptor.
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a captioner wrote about one image, word for word."""

    background_raw: str
    pose_raw: str


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """Which class a captioner takes an image for."""

    guess: int
    """Class id; -1 where it names none."""
    log_likelihood: float | None = None
    """Of that class's name as the whole answer, in nats; None where it tells no likelihoods."""


@dataclass(frozen=True, kw_only=True)
class Captioner(abc.ABC):
    """Reads background and pose from pictures. Final leaves only."""

    name: str
    """Registered name and checkpoint, `qwen_vl:7b`: what the user's name means when written out."""
    revision: str
    """Identifies the weights: a commit of their repository, or a hash of their files."""

    @abc.abstractmethod
    def caption(self, images: Sequence["Image.Image"], *, descriptor: str) -> list[Answer]:
        """The answers to both questions, one `Answer` an image, in the order of the images.

        An answer depends on its own image and the descriptor only, up to float reduction order.

        Args:
            images: RGB pictures of any size.
            descriptor: one word for what all classes are; it goes into the questions.

        Raises:
            Exception: whatever a picture gives cause for; step 1 then asks about each of them alone. Where
                memory runs out, it comes again with fewer pictures.
        """

    def recognise(
        self, images: Sequence["Image.Image"], *, descriptor: str, class_names: Sequence[str]
    ) -> list[Recognition]:
        """Which class each image shows, asked by `NAMING`; for Figure 5 alone, no method makes use of it.

        Args:
            images: RGB pictures of any size.
            descriptor: one word for what all classes are.
            class_names: indexed by class id.

        Raises:
            ValueError: if this captioner cannot be asked.
            Exception: as `caption` does.
        """
        raise ValueError(f"captioner {self.name} tells no classes: Figure 5 wants one whose file has `recognise`")


@dataclass(frozen=True, kw_only=True)
class Loader:
    """What a file of this folder holds."""

    load: Callable[[str, str], Captioner]
    """(argument, device) -> the captioner, its weights on the device."""
    revision: Callable[[str], str]
    """(argument) -> what identifies its weights, without loading them."""
    weights: Callable[[str], Path] = Path
    """(argument) -> their folder on this machine; raises ValueError if there is none."""
    origins: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Arguments that `bob doctor` looks for -> repository on the hub, empty if in this package, and licence."""


def load(name: str, *, device: str = "cpu") -> Captioner:
    """The captioner that the user called `name`, its weights on `device`.

    Args:
        name: a file of this folder, with what it takes after the first colon: `qwen_vl`,
            `qwen_vl:3b`, `qwen_vl:path:/models/mine`.
        device: as torch names it: `cpu`, `cuda`, `cuda:1`.

    Raises:
        ValueError: if there is no such captioner, or its weights are not there.
    """
    kind, _, argument = name.partition(":")
    return registry.load("captioner", kind).load(argument, device)


def revision(name: str) -> str:
    """What identifies the weights of the captioner called `name`, without loading them.

    Raises:
        ValueError: if there is no such captioner, or a folder that is named is not there.
    """
    kind, _, argument = name.partition(":")
    return registry.load("captioner", kind).revision(argument)
