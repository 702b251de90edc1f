"""Captioner with the same words for every picture: the lower end of Figure 5, at no cost.

With it, BOB differs from DataDream only by constant words in its prompts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from bob.captioners import Answer, Captioner, Loader, Recognition

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["captioner"]

_REVISION = "1"


@final
class Blind(Captioner):
    """Captioner that ignores the picture."""

    def caption(self, images: "Sequence[Image.Image]", *, descriptor: str) -> list[Answer]:
        """See `Captioner`; the words that cleaning substitutes for an empty answer."""
        return [Answer(background_raw="plain", pose_raw="typical") for _ in images]

    def recognise(
        self, images: "Sequence[Image.Image]", *, descriptor: str, class_names: Sequence[str]
    ) -> list[Recognition]:
        """The first class for every picture."""
        return [Recognition(guess=0) for _ in images]


def _load(argument: str, device: str) -> Blind:
    return Blind(name="blind", revision=_revision(argument))


def _revision(argument: str) -> str:
    if argument:
        raise ValueError(f"captioner blind takes no argument, got {argument!r}: write blind")
    return _REVISION


captioner = Loader(load=_load, revision=_revision)
