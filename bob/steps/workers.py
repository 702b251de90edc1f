"""Table of workers by step, the in-process executor, and the JSON form of units."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from bob import store
from bob.core import malloc, threads
from bob.core.types import Receipt, Unit
from bob.steps.caption import CaptionWork, CaptionWorker
from bob.steps.classify import ClassifyWorker, FinalWork, SweepWork
from bob.steps.embed import DrawnWork, EmbedWorker, RealWork
from bob.steps.finetune import FinetuneWork, FinetuneWorker
from bob.steps.generate import GenerateWork
from bob.steps.generate_worker import GenerateWorker
from bob.steps.recognise import RecogniseWorker

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["WORKERS", "Worker", "inline", "packed", "unpacked"]


class Worker(Protocol):
    """A worker: does units of one step."""

    def __call__(self, unit: Unit) -> Receipt:
        """Does one unit and commits it."""
        ...


WORKERS: dict[str, Callable[..., Worker]] = {
    "caption": CaptionWorker,
    "finetune": FinetuneWorker,
    "generate": GenerateWorker,
    "embed": EmbedWorker,
    "recognise": RecogniseWorker,
    "classify": ClassifyWorker,
}
"""Step -> its worker, called with (root of the store, device=...)."""

_WORKS: dict[str, Any] = {
    "caption": CaptionWork,
    "finetune": FinetuneWork,
    "generate": GenerateWork,
    "embed": DrawnWork | RealWork,
    "recognise": CaptionWork,
    "classify": SweepWork | FinalWork,
}
"""Step -> type of `Unit.work`."""


def inline(device: str) -> Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]:
    """Returns an executor that does all units in this process, one after another, with one torch thread as on Ray.

    Points of a sweep are trained one by one on a GPU too: how many it would train in lockstep is the cluster's to say.
    """

    def run(step: str, units: Sequence[Unit], artefacts: store.Store) -> Iterator[Receipt]:
        malloc.keep_freed()
        worker = WORKERS[step](artefacts.root, device=device)
        receipts = worker.stream(units) if isinstance(worker, GenerateWorker) else map(worker, units)
        while True:
            with threads.fixed(1):
                receipt = next(receipts, None)
            if receipt is None:
                return
            yield receipt

    return run


def packed(unit: Unit) -> str:
    """Returns a unit as JSON, the form in which Ray carries it."""
    return json.dumps(vars(unit) | {"work": asdict(unit.work) if unit.work else None})


def unpacked(text: str) -> Unit:
    """Returns the unit of a text that `packed` returned.

    Raises:
        ValueError: if the text is not such JSON.
    """
    plain = json.loads(text)
    work = plain["work"] and _adapter(plain["step"]).validate_python(plain["work"])
    return Unit(**plain | {"work": work})


@functools.cache  # making one takes 3 ms
def _adapter(step: str) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(_WORKS[step])
