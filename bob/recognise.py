"""Which class a captioner takes pictures for: the x axis of Figure 5 (paper sec. 4.4). Plain PyTorch, no Ray."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bob import captioners, datasets, memory, schema
from bob.types import Shot

__all__ = ["Recogniser"]

_BATCH = 16  # pictures in memory at once: a photo of a camera takes 70 MB


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """A captioner as a zero-shot classifier; its weights are loaded at the first picture, once."""

    captioner: str
    dataset: str
    """Opens the pictures, and has the class names that are to be chosen from."""
    descriptor: str = ""
    """One word for what all classes are; empty: the data set's own."""
    device: str = "cpu"

    def __call__(self, shots: Sequence[Shot]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Shows it some pictures.

        Returns:
            Rows of schema.RECOGNISED in their order; and rows of schema.REJECTED for those that cannot be opened or
            over which the captioner raises.

        Raises:
            ValueError: if the data set, the captioner or its weights are not there, it does not recognise classes, or
                memory does not hold one picture.
            Exception: what is raised over every single one of several pictures.
        """
        self.load()  # before any row: that these are not there is no picture's fault
        data, model = self._data, self._model
        words: dict[str, Any] = {"descriptor": self.descriptor or data.descriptor, "class_names": data.class_names}

        def ask(some: Sequence[Shot]) -> list[captioners.Recognition]:
            return model.recognise([data.open(shot) for shot in some], **words)

        rows, rejected = [], []
        for shot, found in zip(shots, self._batches.each(shots, ask, size=_BATCH), strict=True):
            if isinstance(found, Exception):
                rejected.append(schema.rejection(shot.image_id, "recognise", found))
                continue
            known = {"image_id": shot.image_id, "class_id": shot.class_id}
            rows.append(known | {"guess": found.guess, "log_likelihood": found.log_likelihood})
        return rows, rejected

    def load(self) -> None:
        """Loads data set and captioner, unless they are; raises as a call does."""
        self._data  # noqa: B018
        self._model  # noqa: B018

    def note(self) -> str:
        """A few words for the receipt if memory has run out since this was last asked."""
        return self._batches.note()

    @functools.cached_property
    def _batches(self) -> memory.Batches:
        return memory.Batches("recognising classes")

    @functools.cached_property
    def _data(self) -> datasets.Dataset:
        return datasets.load(self.dataset)

    @functools.cached_property
    def _model(self) -> captioners.Captioner:
        return captioners.load(self.captioner, device=self.device)
