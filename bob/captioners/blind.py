"""A captioner that does not look: the same words for every picture. The lower end of Figure 5, and free.

BOB with it differs from DataDream in its prompts' words alone, which are the same in all of them.
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
    """Knows nothing."""

    def caption(self, images: "Sequence[Image.Image]", *, descriptor: str) -> list[Answer]:
        """See `Captioner`; what the cleaning falls back on where an answer is empty."""
        return [Answer(background_raw="plain", pose_raw="typical") for _ in images]

    def recognise(
        self, images: "Sequence[Image.Image]", *, descriptor: str, class_names: Sequence[str]
    ) -> list[Recognition]:
        """The first class, whatever is shown."""
        return [Recognition(guess=0) for _ in images]


def _load(argument: str, device: str) -> Blind:
    return Blind(name="blind", revision=_revision(argument))


def _revision(argument: str) -> str:
    if argument:
        raise ValueError(f"captioner blind takes no argument, got {argument!r}: write blind")
    return _REVISION


captioner = Loader(load=_load, revision=_revision)
