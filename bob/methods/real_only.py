"""Real Only: the lower row of every table. Nothing is tuned, nothing is drawn (paper sec. 4.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from bob.methods import DrawSettings, Method, Request, TrainingSet, TrainPair

__all__ = ["method"]


@final
@dataclass(frozen=True, kw_only=True)
class RealOnly(Method):
    """Trains the classifier on the shots alone."""

    paper: ClassVar[str] = "arXiv:2510.24078, sec. 4.1"
    title: ClassVar[str] = "Real Only"
    draws: ClassVar[bool] = False
    summary: ClassVar[tuple[str, str]] = ("nothing", "nothing")

    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """None."""
        return []

    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """None."""
        return iter(())


method = RealOnly()
