"""Captioners as zero-shot classifiers: which class each takes a picture for, for Figure 5 (paper sec. 4.4)."""

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
    """A run's captioner, shown a fixed subset of the test split.

    Args:
        outcome: of the run.
        artefacts: where its split is kept.
        images: how many are shown, about: the same number of each class.
    """
    run, captioner = outcome.run, outcome.run.captioner
    revision, version = captioners.revision(captioner), STEPS["recognise"].version
    shots = _subset(outcome, artefacts, images)
    names = sorted({shot.class_id: shot.class_name for shot in outcome.shots}.items())
    for start in range(0, len(shots), _UNIT):
        part = shots[start : start + _UNIT]
        pictures = [(shot.image_id, shot.sha1, shot.class_id) for shot in part]
        inputs = [version, captioner, revision, run.descriptor, names, pictures]
        yield Unit(
            step="recognise",
            target=f"recognised/{store.slug(f'{outcome.dataset} {captioner}')}-{store.key(*inputs)}.parquet",
            label=f"{outcome.dataset} {captioner} images {start + 1} to {start + len(part)}",
            size=len(part),
            group=captioner,
            work=CaptionWork(
                captioner=captioner,
                dataset=run.dataset,
                descriptor=run.descriptor,
                shots=tuple(part),
                inputs=store.plain(inputs),
            ),
        )


def _subset(outcome: Outcome, artefacts: store.Store, images: int) -> list[Shot]:
    """The same number of test images of each class, whatever their order and the seed of the run."""
    split = [Shot(**row) for row in artefacts.read_checked(outcome.split, schema.SHOTS).to_pylist()]
    test = sorted(
        (s for s in split if s.split == "test"), key=lambda s: derive("recognise", outcome.dataset, s.image_id)
    )
    classes = sorted({shot.class_id for shot in test})
    each = max(1, images // len(classes))
    return [shot for class_id in classes for shot in [s for s in test if s.class_id == class_id][:each]]


@final
@dataclass(frozen=True, kw_only=True)
class RecogniseStep(VlmStep):
    """A captioner as a zero-shot classifier over the data set's class names: rows of schema.RECOGNISED."""

    step = "recognise"
    doing = "recognising classes"

    def _ask(self, pictures: list[Any]) -> Sequence[Recognition]:
        return self._model.recognise(pictures, descriptor=self._noun, class_names=self._data.class_names)

    def _row(self, shot: Shot, answer: Recognition) -> Row:
        known = {"image_id": shot.image_id, "class_id": shot.class_id}
        return known | {"guess": answer.guess, "log_likelihood": answer.log_likelihood}


@final
class RecogniseWorker(VlmWorker):
    """The worker of these units."""

    rows = schema.RECOGNISED
    step = RecogniseStep
