"""Captioners as zero-shot classifiers, for Figure 5 (paper sec. 4.4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from bob import captioners, store
from bob.captioners import Recognition
from bob.core.seeds import derive
from bob.core.step_table import STEPS
from bob.core.types import Outcome, Shot, Unit
from bob.steps.caption import CaptionWork, Row, VlmStep, VlmWorker
from bob.store import schema

__all__ = ["RecogniseStep", "RecogniseWorker", "units"]

_UNIT = 32  # images


def units(outcome: Outcome, artefacts: store.Store, *, images: int) -> Iterator[Unit]:
    """Yields units in which a run's captioner classifies a fixed subset of the test split.

    Args:
        outcome: the run's outcome.
        artefacts: the store of the run's split.
        images: about how many images the subset has; the same number of each class.
    """
    run, captioner = outcome.run, outcome.run.captioner
    revision, version = captioners.revision(captioner), STEPS["recognise"].version
    shots = _subset(outcome, artefacts, images)
    names = sorted({shot.class_id: shot.class_name for shot in outcome.shots}.items())
    for start in range(0, len(shots), _UNIT):
        chunk = shots[start : start + _UNIT]
        pictures = [(shot.image_id, shot.sha1, shot.class_id) for shot in chunk]
        inputs = [version, captioner, revision, run.descriptor, names, pictures]
        yield Unit(
            step="recognise",
            target=f"recognised/{store.slug(f'{outcome.dataset} {captioner}')}-{store.key(*inputs)}.parquet",
            label=f"{outcome.dataset} {captioner} images {start + 1} to {start + len(chunk)}",
            size=len(chunk),
            group=captioner,
            work=CaptionWork(
                captioner=captioner,
                dataset=run.dataset,
                descriptor=run.descriptor,
                shots=tuple(chunk),
                inputs=store.plain(inputs),
            ),
        )


def _subset(outcome: Outcome, artefacts: store.Store, images: int) -> list[Shot]:
    """Returns the same number of test images of each class, independent of their order and the run's seed."""
    split = [Shot(**row) for row in artefacts.read_checked(outcome.split, schema.SHOTS).to_pylist()]
    test = sorted(
        (s for s in split if s.split == "test"), key=lambda s: derive("recognise", outcome.dataset, s.image_id)
    )
    classes = sorted({shot.class_id for shot in test})
    per_class = max(1, images // len(classes))
    return [shot for class_id in classes for shot in [s for s in test if s.class_id == class_id][:per_class]]


@final
@dataclass(frozen=True, kw_only=True)
class RecogniseStep(VlmStep):
    """A captioner as a zero-shot classifier over the data set's class names: rows of `schema.RECOGNISED`."""

    step = "recognise"
    doing = "recognising classes"

    def _ask(self, pictures: list[Any]) -> Sequence[Recognition]:
        return self._model.recognise(pictures, descriptor=self._noun, class_names=self._data.class_names)

    def _row(self, shot: Shot, answer: Recognition) -> Row:
        truth = {"image_id": shot.image_id, "class_id": shot.class_id}
        return truth | {"guess": answer.guess, "log_likelihood": answer.log_likelihood}


@final
class RecogniseWorker(VlmWorker):
    """Worker of the step `recognise`."""

    rows = schema.RECOGNISED
    step = RecogniseStep
