"""The workers by step, the executor that does everything in this process, and units as text on their way to others."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from bob import store
from bob.core import malloc
from bob.core.types import Receipt, Unit
from bob.steps.caption import CaptionWork, CaptionWorker
from bob.steps.classify import ClassifyWorker, FinalWork, SweepWork
from bob.steps.embed import DrawnWork, EmbedWorker, RealWork
from bob.steps.finetune import FinetuneWork, FinetuneWorker
from bob.steps.generate import GenerateWork, GenerateWorker
from bob.steps.recognise import RecogniseWorker

__all__ = ["WORKERS", "Worker", "inline", "packed", "unpacked", "work_of"]


class Worker(Protocol):
    """Does units of one step."""

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
"""Step -> (root, device=...) -> worker."""

_WORKS: dict[str, Any] = {
    "caption": CaptionWork,
    "finetune": FinetuneWork,
    "generate": GenerateWork,
    "embed": DrawnWork | RealWork,
    "recognise": CaptionWork,
    "classify": SweepWork | FinalWork,
}
"""Step -> what its units' work is."""


def inline(device: str) -> Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]:
    """An executor that does everything in this process, one unit after another."""

    def run(step: str, units: Sequence[Unit], artefacts: store.Store) -> Iterator[Receipt]:
        malloc.keep_freed()
        worker = WORKERS[step](artefacts.root, device=device)
        for unit in units:
            yield worker(unit)

    return run


def packed(unit: Unit) -> str:
    """A unit as JSON, which is how Ray carries it."""
    return json.dumps(asdict(unit))


def unpacked(text: str) -> Unit:
    """The unit of a JSON text of `packed`.

    Raises:
        ValueError: if it is not one.
    """
    plain = json.loads(text)
    return Unit(**plain | {"work": work_of(plain["step"], plain["work"])})


def work_of(step: str, config: Any) -> Any:
    """The work of a step's unit, from its plain form: JSON's, or a manifest's `config`.

    Raises:
        ValueError: if it is not that of this step; says what is missing or wrong.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(_WORKS[step]).validate_python(config)
