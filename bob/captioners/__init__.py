"""Registry of captioners, one per file, each holding `captioner`, a `Loader`.

    bob/captioners/x.py:   captioner = Loader(load=..., revision=...)

The argument is what the user wrote after the first colon (`qwen_vl:7b`); it may be empty.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bob.core import registry

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["NAMING", "QUESTIONS", "Answer", "Captioner", "Loader", "Recognition", "load", "revision"]

QUESTIONS = {
    about: f"describe the {about} of the {{d}} in as few words as possible. Refer to the {{d}} as simply 'a {{d}}'."
    for about in ("background", "pose")
}
"""Subject -> the paper's question (sec. 3.1), with `{d}` for the descriptor.

The article is always `a`, the first letter is small, as printed. The question has no class name: a
captioner that knows the class would write it into the context, which is sampled without the class.
"""

NAMING = "Which of these is the {d}: {names}? Answer with the exact name and nothing else."
"""Question that tests whether a captioner knows the classes (Figure 5); the paper does not print its own.

`{names}` stands for all class names with semicolons between them, `{d}` for the descriptor.
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A captioner's verbatim answers about one image."""

    background_raw: str
    pose_raw: str


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """The class that a captioner assigns to an image."""

    guess: int
    """Class id; -1 if the answer names none."""
    log_likelihood: float | None = None
    """Log-likelihood in nats of that class's name as the whole answer; None if the captioner has no likelihoods."""


@dataclass(frozen=True, kw_only=True)
class Captioner(abc.ABC):
    """Reads background and pose from pictures. Subclasses are final."""

    name: str
    """Registered name and checkpoint, written out: `qwen_vl:7b`."""
    revision: str
    """Identifies the weights: a commit of their repository, or a hash of their files."""

    def prepare(self, image: "Image.Image") -> Any:
        """What `caption` and `recognise` also take in place of a picture; by default the picture itself.

        The CPU's part of the work: step 1 calls it in threads, ahead of the pictures before.

        Raises:
            Exception: any error that the picture causes.
        """
        return image

    @abc.abstractmethod
    def caption(self, images: Sequence[Any], *, descriptor: str) -> list[Answer]:
        """The answers to both questions, one `Answer` an image, in the order of the images.

        An answer depends on its own image and the descriptor only, up to float reduction order.

        Args:
            images: RGB pictures of any size, or what `prepare` made of them.
            descriptor: one word for all classes; part of the questions.

        Raises:
            Exception: any error that a picture causes; step 1 then asks about each picture alone, and
                when memory runs out, about fewer at once.
        """

    def recognise(self, images: Sequence[Any], *, descriptor: str, class_names: Sequence[str]) -> list[Recognition]:
        """The class of each image, asked by `NAMING`; used by Figure 5 only, by no method.

        Args:
            images: RGB pictures of any size, or what `prepare` made of them.
            descriptor: one word for all classes.
            class_names: indexed by class id.

        Raises:
            ValueError: if this captioner does not implement `recognise`.
            Exception: as `caption` does.
        """
        raise ValueError(f"captioner {self.name} tells no classes: Figure 5 wants one whose file has `recognise`")


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Entry of a captioner's file."""

    load: Callable[[str, str], Captioner]
    """(argument, device) -> the captioner with its weights on the device."""
    revision: Callable[[str], str]
    """(argument) -> identifier of the weights, without loading them."""
    weights: Callable[[str], Path] = Path
    """(argument) -> folder of the weights on this machine; raises ValueError if there is none."""
    origins: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    """Arguments that `bob doctor` looks for -> repository on the hub and its commit, both empty if in this package, and
    licence."""
    remote: bool = False
    """Whether a server answers, which may take money for each picture and has no rate of this machine."""


def load(name: str, *, device: str = "cpu") -> Captioner:
    """Loads the captioner that the user wrote as `name`, its weights on `device`.

    Args:
        name: name of a file of this folder, then its argument after a colon: `qwen_vl`,
            `qwen_vl:3b`, `qwen_vl:path:/models/mine`.
        device: as torch names it: `cpu`, `cuda`, `cuda:1`.

    Raises:
        ValueError: if there is no such captioner, or its weights are missing.
    """
    kind, _, argument = name.partition(":")
    return registry.load("captioner", kind).load(argument, device)


def revision(name: str) -> str:
    """Identifier of the weights of the captioner `name`, without loading them.

    Raises:
        ValueError: if there is no such captioner, or a given folder does not exist.
    """
    kind, _, argument = name.partition(":")
    return registry.load("captioner", kind).revision(argument)
