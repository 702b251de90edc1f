"""Methods: one file each, holding `method`, an instance with its paper's values.

A method is data, not control flow. It says what to fine-tune on (`train_pairs`), what to draw
(`requests`) and how its images enter the classifier (`mixup`, the label fields of `Request`).
Nothing outside this folder asks which method it is dealing with.
"""

import abc
import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from bob import registry
from bob.seeds import derive
from bob.settings import DrawSettings
from bob.types import Request, TrainingSet, TrainPair

__all__ = ["Method", "load", "text_request"]


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """What makes a method of its own. Fields of a leaf are its switches: `bob:marginalisation=class`."""

    paper: ClassVar[str]
    """Where it comes from."""
    needs_captions: ClassVar[bool] = False
    """Whether it looks at `TrainingSet.contexts`."""
    mixup: ClassVar[bool] = True
    """Whether MixUp may be applied to its images (CutMix always may)."""

    @abc.abstractmethod
    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """What the LoRA learns from; empty: the bare checkpoint draws."""

    @abc.abstractmethod
    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """What to draw, `training.budget.drawn` images of each class, ordered by (class, index).

        Drawing more keeps what was drawn before.
        """


def load(name: str) -> Method:
    """The method that the user called `name`, its switches set: `bob:preservation=off`.

    Raises:
        ValueError: if there is no such method, switch or value; lists what there is.
    """
    kind, _, switches = name.partition(":")
    method: Method = registry.load("method", kind)
    known = {f.name: f.type for f in dataclasses.fields(method)}
    chosen = {}
    for part in filter(None, switches.split(",")):
        switch, _, value = part.partition("=")
        if not known:
            raise ValueError(f"method {kind} has no switches, got {switch!r}: write {kind} alone")
        if switch not in known:
            raise ValueError(registry.unknown(f"switch of method {kind}", switch, known))
        options = typing.get_args(known[switch])
        if value not in options:
            raise ValueError(registry.unknown(f"value of {kind}'s switch {switch}", value, options))
        chosen[switch] = value
    return dataclasses.replace(method, **chosen)


def text_request(
    training: TrainingSet, *, class_id: int, index: int, prompt: str, draw: DrawSettings, seed: int, **context: Any
) -> Request:
    """A text-to-image request with a hard label.

    The seed of its noise is the same for every method, so methods differ by what they ask for.

    Args:
        context: `background`, `pose` and `bank_row` where the prompt has a context.
    """
    return Request(
        request_id=f"{class_id}-{index}",
        class_id=class_id,
        index=index,
        prompt=prompt,
        seed=derive("image", training.dataset, seed, class_id, index),
        guidance=draw.guidance,
        steps=draw.steps,
        label_ids=(class_id,),
        label_weights=(1.0,),
        **context,
    )
