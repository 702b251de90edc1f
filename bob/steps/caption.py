"""Step 1: a captioner reads the background and the pose of each shot (paper sec. 3.1).

`units` lists a run's work units, `CaptionWorker` does one, `CaptionStep` turns shots into rows of captions. Figure 5
asks captioners for classes by the same base classes (`bob.steps.recognise`).
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import pyarrow as pa

from bob import captioners, datasets, store
from bob.captioners import Answer
from bob.captioners._cleaning import PROMPT_VERSION, clean, verbatim
from bob.core import malloc
from bob.core.ahead import Ahead
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, TrainingSet, Unit
from bob.steps.cell import Cell
from bob.store import schema, tables
from bob.store.commit import commit

if TYPE_CHECKING:
    from bob.core.batching import AdaptiveBatcher

__all__ = ["BATCH", "CaptionStep", "CaptionWork", "CaptionWorker", "Row", "VlmStep", "VlmWorker", "units"]

Row = dict[str, Any]

_UNIT = 32  # shots
BATCH = 16
"""Pictures asked about at once; as many are opened ahead: a decoded camera photo takes 70 MB."""


@dataclass(frozen=True, kw_only=True)
class CaptionWork:
    """Work of a unit of `caption` or `recognise`: shots, and the captioner that reads them."""

    captioner: str
    """The captioner's name as the user wrote it: `qwen_vl`, `qwen_vl:3b` ..."""
    dataset: str
    """The data set as the user wrote it; opens the pictures and has the class names."""
    descriptor: str
    """One word for what all classes are; empty: the data set's own."""
    shots: tuple[Shot, ...]
    inputs: Any
    cleaning: str = "standard"
    """`Run.captioner_cleaning`."""


def units(cell: Cell) -> Iterator[Unit]:
    """Yields the units of a run: slices of each rank of shots, so that the units of 10 shots contain those of 5."""
    if not cell.method.needs_captions:
        return
    training, captioner = cell.training, cell.run.captioner
    revision, version = captioners.revision(captioner), STEPS["caption"].version
    cleaning = cell.run.captioner_cleaning
    cleaned = [] if cleaning == "standard" else [cleaning]
    for rank, shots in enumerate(_ranks(training)):
        for start in range(0, len(shots), _UNIT):
            chunk = shots[start : start + _UNIT]
            pictures = [(shot.image_id, shot.sha1) for shot in chunk]
            inputs = [version, captioner, revision, training.descriptor, training.class_names, pictures, *cleaned]
            yield Unit(
                step="caption",
                target=f"captions/{store.slug(captioner)}-{store.key(*inputs)}.parquet",
                label=f"{training.dataset} shot {rank + 1} of classes {chunk[0].class_id} to {chunk[-1].class_id}",
                size=len(chunk),
                group=captioner,
                work=CaptionWork(
                    captioner=captioner,
                    dataset=cell.run.dataset,
                    descriptor=training.descriptor,
                    shots=tuple(chunk),
                    inputs=store.plain(inputs),
                    cleaning=cleaning,
                ),
            )


def _ranks(training: TrainingSet) -> list[list[Shot]]:
    """Returns the first shots of all classes, then the second shots of the classes that have one, and so on."""
    classes = [list(shots) for _, shots in itertools.groupby(training.shots, key=lambda shot: shot.class_id)]
    return [[shot for shot in rank if shot] for rank in itertools.zip_longest(*classes)]


@dataclass(frozen=True, kw_only=True)
class VlmStep(abc.ABC):
    """Base of the steps that ask a captioner about shots. Loads the weights once, at the first call. Plain PyTorch."""

    step: ClassVar[str]
    doing: ClassVar[str]
    """The activity in messages: `captioning`."""

    captioner: str
    """The captioner's name as the user wrote it: `qwen_vl`, `qwen_vl:3b` ..."""
    dataset: str
    """The data set as the user wrote it; opens the pictures and has the class names."""
    descriptor: str = ""
    """One word for what all classes are; empty: the data set's own."""
    device: str = "cpu"
    """Torch's name of the device: `cpu`, `cuda`, `cuda:1`."""

    def __call__(self, shots: Sequence[Shot]) -> tuple[list[Row], list[Row]]:
        """Asks the captioner about shots; the answers do not depend on how the shots are grouped into calls.

        Returns:
            A row per answered shot, in the order of the shots; and rows of `schema.REJECTED` for shots whose picture
            cannot be opened or over which the captioner raises.

        Raises:
            ValueError: if the data set, the captioner or its weights are missing, the captioner does not support this
                question, or a single picture does not fit into memory.
            Exception: the error that every one of several shots raises.
        """
        self.load()  # before any row: a missing data set or captioner is no reason to reject shots

        def prepare(shot: Shot) -> Any:
            return self._model.prepare(self._data.open(shot))

        rows, rejected = [], []
        with Ahead(prepare, shots, ahead=BATCH) as prepared:
            answers = self._batches.each(range(len(shots)), lambda batch: self._ask(prepared(batch)), size=BATCH)
        for shot, answer in zip(shots, answers, strict=True):
            if isinstance(answer, Exception):
                rejected.append(tables.rejection(shot.image_id, self.step, answer))
            else:
                rows.append(self._row(shot, answer))
        return rows, rejected

    def load(self) -> None:
        """Loads data set and captioner unless they are loaded; raises as a call does."""
        self._batches  # noqa: B018
        self._data  # noqa: B018
        self._model  # noqa: B018

    def note(self) -> str:
        """Returns a few words for the receipt if memory ran out since the last call of `note`."""
        return self._batches.note()

    @abc.abstractmethod
    def _ask(self, pictures: list[Any]) -> Sequence[Any]:
        """Returns the captioner's answer to each picture that it prepared."""

    @abc.abstractmethod
    def _row(self, shot: Shot, answer: Any) -> Row: ...

    @property
    def _noun(self) -> str:
        return self.descriptor or self._data.descriptor

    @functools.cached_property
    def _batches(self) -> "AdaptiveBatcher":
        from bob.core.batching import AdaptiveBatcher  # imports torch, which listing units does not need

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
    """Captions shots: rows of `schema.CAPTIONS`, raw answers and answers cleaned of class names."""

    step = "caption"
    doing = "captioning"

    cleaning: str = "standard"
    """`Run.captioner_cleaning`."""

    def _ask(self, pictures: list[Any]) -> Sequence[Answer]:
        return self._model.caption(pictures, descriptor=self._noun)

    def _row(self, shot: Shot, answer: Answer) -> Row:
        words = {"descriptor": self._noun, "class_names": self._data.class_names}
        background, in_background = clean(answer.background_raw, about="background", **words)
        pose, in_pose = clean(answer.pose_raw, about="pose", **words)
        if self.cleaning == "off":
            background = verbatim(answer.background_raw, about="background")
            pose = verbatim(answer.pose_raw, about="pose")
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
    """Base of the workers of `CaptionWork`: asks about a unit's shots and commits the answers."""

    rows: ClassVar[pa.Schema]
    """Schema of the unit's table."""
    step: ClassVar[type[VlmStep]]

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._resident: VlmStep | None = None

    def __call__(self, unit: Unit) -> Receipt:
        """Asks about the unit's shots; a shot that cannot be read goes to the unit's `rejected` file."""
        times, work = Stopwatch(self._device), unit.work
        with malloc.importing():
            step = self.made(work)
            self._resident = step = self._resident if self._resident and self._resident == step else step
            step.load()
        with times("work"):
            rows, rejected = step(work.shots)
        return commit(unit, rows, self.rows, rejected, self._store, times=times, note=step.note())

    def made(self, work: CaptionWork) -> VlmStep:
        """Returns the step that does this work, its weights not loaded."""
        return self.step(
            captioner=work.captioner, dataset=work.dataset, descriptor=work.descriptor, device=self._device
        )


@final
class CaptionWorker(VlmWorker):
    """Worker of step 1."""

    rows = schema.CAPTIONS
    step = CaptionStep

    def made(self, work: CaptionWork) -> VlmStep:
        """See `VlmWorker`."""
        return dataclasses.replace(super().made(work), cleaning=work.cleaning)
