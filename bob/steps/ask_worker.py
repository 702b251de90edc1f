"""What a worker process does with the units that ask a captioner: for captions, and for classes."""

import abc
from typing import TYPE_CHECKING, ClassVar, final

import pyarrow as pa

from bob import store
from bob.core import malloc
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, Unit
from bob.store import schema
from bob.store.commit import commit

if TYPE_CHECKING:
    from bob.steps.ask import Asker

__all__ = ["CaptionWorker", "RecogniseWorker"]


class _AskWorker(abc.ABC):
    """A unit's work: captioner, dataset, descriptor, shots."""

    rows: ClassVar[pa.Schema]
    """Of the unit's table."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._asker: Asker | None = None

    def __call__(self, unit: Unit) -> Receipt:
        """Asks about the unit's shots; one that could not be read goes to the unit's `rejected` file."""
        times, work = Stopwatch(self._device), unit.work
        with malloc.importing():
            wanted = self._kind()(
                captioner=work["captioner"], dataset=work["dataset"], descriptor=work["descriptor"], device=self._device
            )
            self._asker = asker = self._asker if self._asker and self._asker == wanted else wanted
            asker.load()
        with times("work"):
            rows, rejected = asker([Shot(**shot) for shot in work["shots"]])
        return commit(unit, rows, self.rows, rejected, self._store, times=times, note=asker.note())

    @abc.abstractmethod
    def _kind(self) -> "type[Asker]":
        """Imported where it is needed, torch with it."""


@final
class CaptionWorker(_AskWorker):
    """Step 1."""

    rows = schema.CAPTIONS

    def _kind(self) -> "type[Asker]":
        from bob.steps.caption import Reader

        return Reader


@final
class RecogniseWorker(_AskWorker):
    """For Figure 5: which class a captioner takes pictures for."""

    rows = schema.RECOGNISED

    def _kind(self) -> "type[Asker]":
        from bob.steps.recognise import Recogniser

        return Recogniser
