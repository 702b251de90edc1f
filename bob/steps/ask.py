"""Pictures shown to a captioner, whatever it is asked of them. Plain PyTorch, no Ray."""

import abc
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bob import captioners, datasets
from bob.core import batching
from bob.core.types import Shot
from bob.store import tables

__all__ = ["Asker", "Row"]

Row = dict[str, Any]

_BATCH = 16  # pictures in memory at once: a photo of a camera takes 70 MB


@dataclass(frozen=True, kw_only=True)
class Asker(abc.ABC):
    """Asks about shots, one worker's share at a time; the captioner's weights are loaded at the first, once."""

    step: ClassVar[str]
    doing: ClassVar[str]
    """What it does to pictures, in a word or two."""

    captioner: str
    """As the user wrote it: `qwen_vl`, `qwen_vl:3b` ..."""
    dataset: str
    """As the user wrote it: opens the pictures and tells the class names."""
    descriptor: str = ""
    """One word for what all classes are; empty: the data set's own."""
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda`, `cuda:1`."""

    def __call__(self, shots: Sequence[Shot]) -> tuple[list[Row], list[Row]]:
        """Asks about some shots, whichever and in whatever groups they come.

        Returns:
            A row for each, in their order; and rows of `schema.REJECTED` for shots whose picture cannot be opened or
            over which the captioner raises.

        Raises:
            ValueError: if the data set, the captioner or its weights are not there, it does not answer such questions,
                or memory does not hold one picture.
            Exception: what is raised over every single one of several shots.
        """
        self.load()  # before any row: that these are not there is no shot's fault

        def ask(some: Sequence[Shot]) -> Sequence[Any]:
            return self._ask([self._data.open(shot) for shot in some])

        rows, rejected = [], []
        for shot, answer in zip(shots, self._batches.each(shots, ask, size=_BATCH), strict=True):
            if isinstance(answer, Exception):
                rejected.append(tables.rejection(shot.image_id, self.step, answer))
            else:
                rows.append(self._row(shot, answer))
        return rows, rejected

    def load(self) -> None:
        """Loads data set and captioner, unless they are; raises as a call does."""
        self._data  # noqa: B018
        self._model  # noqa: B018

    def note(self) -> str:
        """A few words for the receipt if memory has run out since this was last asked."""
        return self._batches.note()

    @abc.abstractmethod
    def _ask(self, pictures: list[Any]) -> Sequence[Any]:
        """An answer to each picture."""

    @abc.abstractmethod
    def _row(self, shot: Shot, answer: Any) -> Row: ...

    @property
    def _noun(self) -> str:
        return self.descriptor or self._data.descriptor

    @functools.cached_property
    def _batches(self) -> batching.AdaptiveBatcher:
        return batching.AdaptiveBatcher(self.doing)

    @functools.cached_property
    def _data(self) -> datasets.Dataset:
        return datasets.load(self.dataset)

    @functools.cached_property
    def _model(self) -> captioners.Captioner:
        return captioners.load(self.captioner, device=self.device)
