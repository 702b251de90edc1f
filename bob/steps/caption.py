"""Step 1: a captioner reads the background and the pose of each shot (paper sec. 3.1).

`units` says what there is to caption, `CaptionWorker` does a unit, `CaptionStep` is what is asked and kept. Figure 5
asks captioners for classes in the same way (`bob.steps.recognise`).
"""

import abc
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import pyarrow as pa

from bob import captioners, datasets, store
from bob.captioners import Answer
from bob.captioners._cleaning import PROMPT_VERSION, clean
from bob.core import malloc
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, TrainingSet, Unit
from bob.steps.cell import Cell
from bob.store import schema, tables
from bob.store.commit import commit

if TYPE_CHECKING:
    from bob.core.batching import AdaptiveBatcher

__all__ = ["CaptionStep", "CaptionWork", "CaptionWorker", "Row", "VlmStep", "VlmWorker", "units"]

Row = dict[str, Any]

_UNIT = 32  # shots
_BATCH = 16  # pictures in memory at once: a photo of a camera takes 70 MB


@dataclass(frozen=True, kw_only=True)
class CaptionWork:
    """What the worker needs to show some shots to a captioner; of `recognise`, too."""

    captioner: str
    """As the user wrote it: `qwen_vl`, `qwen_vl:3b` ..."""
    dataset: str
    """As the user wrote it: opens the pictures and tells the class names."""
    descriptor: str
    """One word for what all classes are; empty: the data set's own."""
    shots: tuple[Shot, ...]
    inputs: Any


def units(cell: Cell) -> Iterator[Unit]:
    """Slices of each rank, so that the units of 10 shots contain those of 5."""
    if not cell.method.needs_captions:
        return
    training, captioner = cell.training, cell.run.captioner
    revision, version = captioners.revision(captioner), STEPS["caption"].version
    for rank, shots in enumerate(_ranks(training)):
        for start in range(0, len(shots), _UNIT):
            part = shots[start : start + _UNIT]
            pictures = [(shot.image_id, shot.sha1) for shot in part]
            inputs = [version, captioner, revision, training.descriptor, training.class_names, pictures]
            yield Unit(
                step="caption",
                target=f"captions/{store.slug(captioner)}-{store.key(*inputs)}.parquet",
                label=f"{training.dataset} shot {rank + 1} of classes {part[0].class_id} to {part[-1].class_id}",
                size=len(part),
                group=captioner,
                work=CaptionWork(
                    captioner=captioner,
                    dataset=cell.run.dataset,
                    descriptor=training.descriptor,
                    shots=tuple(part),
                    inputs=store.plain(inputs),
                ),
            )


def _ranks(training: TrainingSet) -> list[list[Shot]]:
    """The first shot of every class, then the second of every class that has one, and so on."""
    classes = [list(same) for _, same in itertools.groupby(training.shots, key=lambda shot: shot.class_id)]
    return [[shot for shot in rank if shot] for rank in itertools.zip_longest(*classes)]


@dataclass(frozen=True, kw_only=True)
class VlmStep(abc.ABC):
    """Asks a captioner about shots, a unit at a time. Its weights are loaded once, at the first. Plain PyTorch."""

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
    def _batches(self) -> "AdaptiveBatcher":
        from bob.core.batching import AdaptiveBatcher  # torch with it, which naming the units does without

        return AdaptiveBatcher(self.doing)

    @functools.cached_property
    def _data(self) -> datasets.Dataset:
        return datasets.load(self.dataset)

    @functools.cached_property
    def _model(self) -> captioners.Captioner:
        return captioners.load(self.captioner, device=self.device)


@final
@dataclass(frozen=True, kw_only=True)
class CaptionStep(VlmStep):
    """Captions shots: rows of `schema.CAPTIONS`, raw and cleaned, for no class name must leak."""

    step = "caption"
    doing = "captioning"

    def _ask(self, pictures: list[Any]) -> Sequence[Answer]:
        return self._model.caption(pictures, descriptor=self._noun)

    def _row(self, shot: Shot, answer: Answer) -> Row:
        words = {"descriptor": self._noun, "class_names": self._data.class_names}
        background, in_background = clean(answer.background_raw, about="background", **words)
        pose, in_pose = clean(answer.pose_raw, about="pose", **words)
        return {
            "image_id": shot.image_id,
            "background": background,
            "pose": pose,
            "background_raw": answer.background_raw,
            "pose_raw": answer.pose_raw,
            "leaked": in_background or in_pose,
            "captioner": self._model.name,
            "revision": self._model.revision,
            "prompt_version": PROMPT_VERSION,
        }


class VlmWorker(abc.ABC):
    """Does units of `CaptionWork`: asks about their shots and commits the answers."""

    rows: ClassVar[pa.Schema]
    """Of the unit's table."""
    step: ClassVar[type[VlmStep]]

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._resident: VlmStep | None = None

    def __call__(self, unit: Unit) -> Receipt:
        """Asks about the unit's shots; one that could not be read goes to the unit's `rejected` file."""
        times, work = Stopwatch(self._device), unit.work
        with malloc.importing():
            wanted = self.step(
                captioner=work.captioner, dataset=work.dataset, descriptor=work.descriptor, device=self._device
            )
            self._resident = step = self._resident if self._resident and self._resident == wanted else wanted
            step.load()
        with times("work"):
            rows, rejected = step(work.shots)
        return commit(unit, rows, self.rows, rejected, self._store, times=times, note=step.note())


@final
class CaptionWorker(VlmWorker):
    """The worker of step 1."""

    rows = schema.CAPTIONS
    step = CaptionStep
