"""Step 4: a classifier is swept and trained on real and synthetic images (paper sec. 4.1).

`sweep` and `final` list a run's work units, `ClassifyWorker` does one; the training itself is `bob.classifier`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from bob import backbones, datasets, store
from bob.core import malloc, threads
from bob.core.settings import Point, Run, SweepSettings
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, Unit
from bob.steps.cell import Cell, label, name
from bob.store import schema, tables

if TYPE_CHECKING:
    from bob.classifier.trainer import Course

__all__ = ["ClassifyWork", "ClassifyWorker", "Coordinates", "FinalWork", "SweepWork", "final", "sweep"]

_SAVE_EVERY = 60.0  # seconds of training between saved states


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Columns that identify a run in tables of results: fields of `Run`, `dataset` named as in results."""

    dataset: str
    descriptor: str
    shots: int
    method: str
    checkpoint: str
    backbone: str
    seed: int

    def as_run(self) -> Run:
        """The run with these fields; the others are at their defaults."""
        return Run(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class ClassifyWork:
    """Base of the work of a unit: what all trainings of one run share."""

    run: str
    """Key of the run."""
    inputs: Any
    coordinates: Coordinates
    dataset: str
    """The data set as the user wrote it; opens the pictures."""
    split: str
    """Path of the table of shots, validation and test images."""
    images: str
    """Folder of the synthetic images; empty where there are none."""
    copies: int
    """How often each real image enters an epoch."""
    mixup: bool
    """Whether MixUp is allowed beside CutMix."""
    classes: int
    groups: dict[str, tuple[int, ...]]
    """Long tail only: class ids of the many-, medium- and few-shot classes."""
    cost: float
    """Cost of an epoch, in pictures of ResNet-50's time; longer trainings are scheduled first."""
    sweep: SweepSettings


@dataclass(frozen=True, kw_only=True)
class SweepWork(ClassifyWork):
    """Work of a short training with one point of the sweep."""

    phase: Literal["sweep"] = "sweep"
    point: Point


@dataclass(frozen=True, kw_only=True)
class FinalWork(ClassifyWork):
    """Work of the long training with the best point of the sweep."""

    phase: Literal["final"] = "final"
    receipts: tuple[str, ...]
    """Paths of the tables of the sweep's trainings."""
    points: tuple[Point, ...]
    """Points of the sweep's trainings, in the order of `receipts`."""


def sweep(cell: Cell) -> list[Unit]:
    """Returns the short trainings of a run: a unit per point of the sweep."""
    shared, run = _shared(cell), cell.run
    points = run.sweep.points(has_synthetic=bool(cell.images), seed=run.seed)
    return [
        Unit(
            step="classify",
            target=f"results/{name(cell)}-{shared['run']}/sweep-{number:03d}.parquet",
            label=f"{label(cell, 'method', 'backbone')} {number + 1} of {len(points)}",
            size=run.sweep.sweep_epochs,
            group=shared["run"],
            work=SweepWork(**shared, point=point),
        )
        for number, point in enumerate(points)
    ]


def final(cell: Cell, swept: Sequence[Unit]) -> Unit:
    """Returns the unit of a run's long training, with the best point of the units in `swept`."""
    works: list[SweepWork] = [unit.work for unit in swept]
    shared = {field.name: getattr(works[0], field.name) for field in fields(ClassifyWork)}
    return Unit(
        step="classify",
        target=f"results/{name(cell)}-{works[0].run}/final.parquet",
        label=f"{label(cell, 'method', 'backbone')} final",
        size=cell.run.sweep.final_epochs,
        group=works[0].run,
        work=FinalWork(
            **shared,
            receipts=tuple(unit.target for unit in swept),
            points=tuple(work.point for work in works),
        ),
    )


def _shared(cell: Cell) -> dict[str, Any]:
    """Returns the fields of `ClassifyWork`, which all trainings of a run share."""
    run = cell.run
    names = [field.name for field in fields(Coordinates) if field.name != "dataset"]
    coordinates = Coordinates(dataset=cell.training.dataset, **{name: getattr(run, name) for name in names})
    budget, backbone = cell.training.budget, backbones.load(run.backbone)
    copies = budget.copies if cell.images else budget.alone
    identity = [STEPS["classify"].version, backbone.identity]
    parts = [*identity, asdict(coordinates), run.sweep, cell.split, cell.images, cell.method.mixup, copies]
    inputs = store.plain(parts)  # manifests are JSON: the sweep's settings have to keep their name
    return {
        "run": store.key(*inputs),
        "inputs": inputs,
        "coordinates": coordinates,
        "dataset": run.dataset,
        "split": cell.split,
        "images": cell.images,
        "copies": copies,
        "mixup": cell.method.mixup,
        "classes": len(cell.training.class_names),
        "groups": cell.groups,
        "cost": backbone.cost * (len(cell.training.shots) * copies + cell.drawn),
        "sweep": run.sweep,
    }


class ClassifyWorker:
    """Worker of step 4: trains one classifier and commits its table.

    A sweep unit trains one point; the final unit reads the sweep's tables, trains the best point for longer and
    measures it on the test set.
    """

    def __init__(self, root: str, *, device: str, save_every: float = _SAVE_EVERY) -> None:
        self._store, self.device, self._save_every = store.Store(root), device, save_every
        self._loaded: tuple[tuple[Any, ...], Any] | None = None

    @threads.fixed(1)
    def __call__(
        self, unit: Unit, *, report: Callable[[Mapping[str, Any]], None] | None = None, alone: bool = True
    ) -> Receipt:
        """Trains one classifier; passes each epoch's row to `report` as soon as it is measured.

        A sweep training that breaks off does not fail the unit: its table ends with a row of NaNs, its manifest and
        its receipt say why, and its point is never selected. One that runs out of memory breaks off only if it is
        `alone` on its device.

        Raises:
            CrowdedOut: if memory ran out beside other trainings; the next attempt goes on from the saved state.
            ValueError: if every training of the sweep broke off, or the final one before its first measurement.
        """
        with malloc.importing():
            from bob.classifier.results import failure, has_failed
            from bob.classifier.trainer import train_together
            from bob.core import batching
        times, work = Stopwatch(self.device), unit.work
        point = self._best(work) if isinstance(work, FinalWork) else work.point
        history, why, told = list[dict[str, Any]](), "", report or (lambda row: None)
        try:
            for _, row in train_together([self.course(unit, point, times)]):
                history.append(row)
                told(row)
        except (MemoryError, RuntimeError, ValueError) as error:
            if not batching.comes_of_memory(error):
                raise
            why = f"out of memory ({str(error).strip().partition(chr(10))[0]})"
        if why:
            batching.release()  # outside the handler, whose exception still references tensors
            if not alone:
                raise batching.CrowdedOut(why)
            history.append(failure(len(history) + 1) | {"train_n": 0, "val_n": 0})
        if isinstance(work, FinalWork) and has_failed(history) and (why or len(history) == 1):
            why = why or "its loss is not finite"
            raise ValueError(
                f"{unit.label} broke off in epoch {len(history)}: {why}; look at its batch and its learning rate"
            )
        return self.commit(unit, history, point=point, times=times, why=why)

    def commit(
        self, unit: Unit, history: Sequence[dict[str, Any]], *, point: Point, times: Stopwatch, why: str = ""
    ) -> Receipt:
        """Writes the table of a training.

        Args:
            unit: the unit that was trained.
            history: a row per epoch.
            point: the point that was trained.
            times: the stopwatch of the unit.
            why: the reason if the training broke off with a finite loss.
        """
        from bob.classifier.results import has_failed, result_rows

        times.switch("write")
        work, failed = unit.work, has_failed(history)
        broke, run = f"broke off in epoch {len(history)}: {why or 'its loss is not finite'}", work.coordinates.as_run()
        rows = result_rows(history, run=run, key=work.run, phase=work.phase, point=point, groups=work.groups)
        manifest = store.provenance(unit.config, times=times) | ({"failure": broke} if failed else {})
        self._store.write_table(unit.target, tables.from_rows(rows, schema.RESULTS), manifest)
        self._store.delete(f"{unit.target}.state.pt")
        best = max((row["val_accuracy"] for row in history if math.isfinite(row["val_accuracy"])), default=math.nan)
        note = "" if math.isnan(best) else f"best validation accuracy {best:.1%}"
        if failed:
            note = broke + (", so it is not selected" if work.phase == "sweep" else f"; {note} before")
        return Receipt(target=unit.target, label=unit.label, size=unit.size, times=times.times(), note=note)

    def course(self, unit: Unit, point: Point, times: Stopwatch) -> "Course":
        """The training of a unit with a point, from its saved state if there is one."""
        with malloc.importing():
            from bob.classifier.trainer import Course, Training
        work, sweep, data, path = unit.work, unit.work.sweep, self._data(unit.work), f"{unit.target}.state.pt"
        final = isinstance(work, FinalWork)
        times.switch("work")
        return Course(
            data,
            Training(
                backbone=work.coordinates.backbone,
                point=point,
                settings=sweep,
                epochs=sweep.final_epochs if final else sweep.sweep_epochs,
                seed=work.coordinates.seed,
                mixup=work.mixup,
                with_test=final,
            ),
            device=self.device,
            state=self._store.read(path) if self._store.exists(path) else None,
            save=times.around("write", lambda _, state: self._store.write(path, state)),
            save_every=self._save_every,
        )

    def _best(self, work: FinalWork) -> Point:
        """Returns the point with the best validation accuracy in the sweep's tables."""
        from bob.classifier.results import select

        histories = []
        for path, point in zip(work.receipts, work.points, strict=True):
            rows = self._store.read_checked(path, schema.RESULTS, least=1).to_pylist()
            history = [
                {"epoch": row["epoch"], "val_accuracy": row["value"]}
                for row in rows
                if (row["split"], row["metric"]) == ("val", "accuracy")
            ]
            histories.append((point, history))
        return select(histories)

    def _data(self, work: ClassifyWork) -> Any:
        """Returns a run's pixels, decoded once and kept until a unit of another run comes."""
        from bob.classifier.data import Data, real_arrays, synthetic_arrays
        from bob.store.images import read_images

        run = work.coordinates.as_run()
        identity = (work.dataset, run.descriptor, work.split, work.images, work.copies, run.backbone)
        if self._loaded is not None and self._loaded[0] == identity:
            return self._loaded[1]
        with malloc.importing():
            backbone = backbones.load(run.backbone)
        dataset = datasets.load(work.dataset, run.descriptor)
        shots = [Shot(**row) for row in self._store.read_checked(work.split, schema.SHOTS).to_pylist()]
        split = {name: [shot for shot in shots if shot.split == name] for name in ("train", "val", "test")}
        real, real_labels = real_arrays(dataset, split["train"], backbone)
        val, val_labels = real_arrays(dataset, split["val"], backbone)
        table = read_images(self._store, work.images) if work.images else tables.from_rows([], schema.IMAGES)
        synthetic, labels = synthetic_arrays(table, backbone, classes=len(dataset.class_names))
        data = Data(
            class_names=dataset.class_names,
            descriptor=dataset.descriptor,
            real=real,
            real_labels=real_labels,
            val=val,
            val_labels=val_labels,
            synthetic=synthetic,
            synthetic_labels=labels,
            copies=work.copies,
            test=lambda: real_arrays(dataset, split["test"], backbone),
        )
        self._loaded = (identity, data)
        return data
