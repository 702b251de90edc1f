"""Registry of methods, one per file, and the public interface that method files import.

    bob/methods/x.py:   method = X()        an instance of a `Method` with the published settings

A method is data, not control flow. It says what to fine-tune on (`train_pairs`, `tuning`), what to draw
(`requests`) and how its images enter the classifier (`mixup`, `filtered`, the label fields of `Request`).
No code outside this folder depends on which method is running.

Another package adds a method by an entry point `NAME = "module:method"` in the group `beyond_objects.methods`. All
that a method file needs can be imported from here; these names stay here when other modules move.
"""

import abc
import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from bob.core import registry
from bob.core.budget import Budget
from bob.core.prompts import class_prompt, context_prompt
from bob.core.seeds import derive
from bob.core.settings import DrawSettings, FinetuneSettings
from bob.core.types import Context, Filter, Request, Shot, Token, TrainingSet, TrainPair, Tuning

__all__ = [
    "Budget",
    "Context",
    "DrawSettings",
    "Filter",
    "FinetuneSettings",
    "Method",
    "Request",
    "Shot",
    "Token",
    "TrainPair",
    "TrainingSet",
    "Tuning",
    "class_prompt",
    "context_prompt",
    "derive",
    "load",
    "of_class",
    "require_parts",
    "title",
]


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """One way to make synthetic training images. Fields of a subclass are its switches: `bob:marginalisation=class`."""

    paper: ClassVar[str]
    """Reference of the publication."""
    title: ClassVar[str] = ""
    """Name in the paper's tables; empty: the file's name."""
    draws: ClassVar[bool] = True
    """Whether the method draws any images."""
    summary: ClassVar[tuple[str, str]] = ("", "")
    """Columns of `bob methods`, a few words each: what is tuned, what is drawn."""
    needs_captions: ClassVar[bool] = False
    """Whether the method reads `TrainingSet.contexts`."""
    needs_suffixes: ClassVar[bool] = False
    """Whether the method reads `TrainingSet.suffixes`, which are condensed from the captions."""
    mixup: ClassVar[bool] = True
    """Whether MixUp may be applied to the images (CutMix always may)."""
    scheduler: ClassVar[str] = "default"
    """Sampler: see `Request.scheduler`."""
    guidance: ClassVar[float] = 2.0
    """Classifier-free guidance scale, unless the run says otherwise."""
    steps: ClassVar[int] = 50
    """Sampler steps, unless the run or a mini checkpoint says otherwise."""
    finetune: ClassVar[FinetuneSettings | None] = None
    """Published fine-tuning settings, unless the run says otherwise; None: the checkpoint's (BOB's Table 4)."""
    finetune_mini: ClassVar[FinetuneSettings | None] = None
    """The same for a mini checkpoint."""

    @abc.abstractmethod
    def train_pairs(self, training: TrainingSet) -> list[TrainPair]:
        """Images and prompts to fine-tune on; empty: the checkpoint draws without fine-tuning."""

    def tuning(self, training: TrainingSet) -> Tuning:
        """Parts of the checkpoint to train on the pairs; by default LoRA on U-Net and text encoder."""
        return Tuning()

    @abc.abstractmethod
    def requests(self, training: TrainingSet, *, draw: DrawSettings, seed: int) -> Iterator[Request]:
        """Yields `asked(training, class_id)` requests of each class, ordered by (class, index).

        A larger budget keeps the requests of a smaller one.
        """

    def filtered(self, training: TrainingSet) -> Filter | None:
        """Rule by which drawn images are kept; None: all are."""
        return None

    def asked(self, training: TrainingSet, class_id: int) -> int:
        """Number of images to draw so that the filter leaves the budget's number."""
        rule = self.filtered(training)
        count = training.budget.drawn[class_id]
        return count + math.ceil(count * (rule.surplus if rule else 0) - 1e-9)  # the float 0.12 is above 0.12

    def request(
        self,
        training: TrainingSet,
        *,
        class_id: int,
        index: int,
        prompt: str,
        draw: DrawSettings,
        seed: int,
        **fields: Any,
    ) -> Request:
        """A request with this method's sampler: text to image with a hard label, unless `fields` say otherwise.

        The noise seed does not depend on the method, so methods differ only by their requests.
        """
        label: dict[str, Any] = {"label_ids": (class_id,), "label_weights": (1.0,), **fields}
        return Request(
            request_id=f"{class_id}-{index}",
            class_id=class_id,
            index=index,
            prompt=prompt,
            seed=derive("image", training.dataset, seed, class_id, index),
            guidance=draw.guidance,
            steps=draw.steps,
            scheduler=self.scheduler,
            **label,
        )


def require_parts(name: str, *values: float) -> None:
    """Checks a switch whose values are parts of the noise schedule.

    Raises:
        ValueError: if a value is not in (0, 1].
    """
    if not values or not all(0 < value <= 1 for value in values):
        raise ValueError(
            f"{name} is a part of the noise schedule, above 0 and at most 1, got {'/'.join(map(str, values))}"
        )


def of_class(training: TrainingSet) -> list[list[Shot]]:
    """The shots of each class, by class id."""
    classes: list[list[Shot]] = [[] for _ in training.class_names]
    for shot in training.shots:
        classes[shot.class_id].append(shot)
    return classes


def title(name: str) -> str:
    """The method's name in tables: `BOB`, `BOB marginalisation=class`. `name` is as the user wrote it."""
    kind, _, switches = name.partition(":")
    return f"{load(name).title or kind} {switches}".rstrip()


def load(name: str) -> Method:
    """Loads the method that the user wrote as `name`, with its switches set: `bob:preservation=off`.

    Raises:
        ValueError: if the method, switch or value is unknown; lists the known ones.
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
        chosen[switch] = _value(kind, switch, value, known[switch])
    return dataclasses.replace(method, **chosen)


def _value(kind: str, switch: str, value: str, switch_type: Any) -> Any:
    """Parses a switch's value as its type: one of several words, a number, or several numbers `0.3/0.5`."""
    if switch_type in (int, float, tuple[float, ...]):
        try:
            return tuple(map(float, value.split("/"))) if switch_type not in (int, float) else switch_type(value)
        except ValueError as error:
            example = {int: "1", float: "0.7"}.get(switch_type, "0.3/0.5")
            raise ValueError(
                f"{kind}'s switch {switch} takes a number as in {switch}={example}, got {value!r}"
            ) from error
    options = typing.get_args(switch_type)
    if value not in options:
        raise ValueError(registry.unknown(f"value of {kind}'s switch {switch}", value, options))
    return value
