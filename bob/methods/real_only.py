"""Real Only: the baseline without tuning or synthetic images (paper sec. 4.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import DrawSettings, Method, Request, TrainingSet, TrainPair

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class RealOnly(Method):
    """Classifier trained on the shots alone."""

    paper: ClassVar[str] = "arXiv:2510.24078, sec. 4.1"
    title: ClassVar[str] = "Real Only"
    draws: ClassVar[bool] = False
    summary: ClassVar[tuple[str, str]] = ("nothing", "nothing")

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """No pairs."""
        return []

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """No requests."""
        return iter(())


method = RealOnly()
