"""Which class a captioner takes pictures for: the x axis of Figure 5 (paper sec. 4.4). Plain PyTorch, no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from bob.captioners import Recognition
from bob.core.types import Shot
from bob.steps.ask import Asker, Row

__all__ = ["Recogniser"]


@final
@dataclass(frozen=True, kw_only=True)
class Recogniser(Asker):
    """A captioner as a zero-shot classifier over the data set's class names: rows of schema.RECOGNISED."""

    step = "recognise"
    doing = "recognising classes"

    def _ask(self, pictures: list[Any]) -> Sequence[Recognition]:
        return self._model.recognise(pictures, descriptor=self._noun, class_names=self._data.class_names)

    def _row(self, shot: Shot, answer: Recognition) -> Row:
        known = {"image_id": shot.image_id, "class_id": shot.class_id}
        return known | {"guess": answer.guess, "log_likelihood": answer.log_likelihood}
