"""What a worker process does with one unit of step 4: train one classifier and commit its table."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bob import datasets, store
from bob.core import malloc
from bob.core.settings import Point, Run, SweepSettings
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, Unit
from bob.store import schema, tables

__all__ = ["ClassifyWorker"]

_SAVE_EVERY = 60.0
"""Seconds that a classifier trains before its state is worth writing."""
_ATTEMPTS = 3
"""At a training that memory does not hold: others on the same device may have finished by the next."""


class ClassifyWorker:
    """Step 4. A unit's work: run (key), coordinates, split (path), images (folder), sweep, phase ...

    A sweep unit trains one point; the final unit reads the sweep's receipts, trains the best point
    for longer and measures it on the test set.
    """

    def __init__(self, root: str, *, device: str, save_every: float = _SAVE_EVERY) -> None:
        self._store, self._device, self._save_every = store.Store(root), device, save_every
        self._held: tuple[tuple[Any, ...], Any] | None = None

    def __call__(self, unit: Unit, *, report: Callable[[Mapping[str, Any]], None] | None = None) -> Receipt:
        """Trains one classifier; `report` is given each epoch's row as it comes.

        A training of the sweep that breaks off is that point's failure: its table ends with a row of NaNs, its
        manifest and its receipt say why, and it is never selected.

        Raises:
            ValueError: if every training of the sweep broke off, or the final one before there was anything to measure.
        """
        with malloc.importing():
            from bob.classifier.results import failure, has_failed
            from bob.core import batching

        times, work = Stopwatch(self._device), unit.work
        history: list[dict[str, Any]] = []
        point = self._best(work) if work["phase"] == "final" else Point(**work["point"])
        for attempt in range(1, _ATTEMPTS + 1):
            history.clear()
            why = ""
            try:
                for row in self._train(unit, point, times):
                    history.append(row)
                    if report is not None:
                        report(row)
                break
            except (MemoryError, RuntimeError) as error:
                if not batching.is_out_of_memory(error):
                    raise
                why = f"out of memory {attempt} times ({str(error).strip().partition(chr(10))[0]})"
            times.switch("load")
            batching.release()  # out here, where no exception holds tensors any more
        else:
            history.append(failure(len(history) + 1) | {"train_n": 0, "val_n": 0})
        if work["phase"] == "final" and has_failed(history) and (why or len(history) == 1):
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
            unit: what was trained.
            history: the rows of its epochs.
            point: what it was trained with.
            times: since it began.
            why: it broke off, if it did and its loss was finite.
        """
        from bob.classifier.results import has_failed, result_rows

        times.switch("write")
        work, run = unit.work, Run(**unit.work["coordinates"])
        broke = f"broke off in epoch {len(history)}: {why or 'its loss is not finite'}"
        failed = has_failed(history)
        rows = result_rows(history, run=run, key=work["run"], phase=work["phase"], point=point, groups=work["groups"])
        manifest = store.provenance(work, times=times) | ({"failure": broke} if failed else {})
        self._store.write_table(unit.target, tables.from_rows(rows, schema.RESULTS), manifest)
        self._store.delete(f"{unit.target}.state.pt")
        best = max((row["val_accuracy"] for row in history if math.isfinite(row["val_accuracy"])), default=math.nan)
        note = "" if math.isnan(best) else f"best validation accuracy {best:.1%}"
        if failed:
            note = broke + (", so it is not selected" if work["phase"] == "sweep" else f"; {note} before")
        return Receipt(target=unit.target, label=unit.label, size=unit.size, times=times.times(), note=note)

    def _train(self, unit: Unit, point: Point, times: Stopwatch) -> Iterator[dict[str, Any]]:
        with malloc.importing():
            from bob.classifier.trainer import Training, train

        work, run = unit.work, Run(**unit.work["coordinates"])
        final, resumable = work["phase"] == "final", f"{unit.target}.state.pt"
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in work["sweep"].items()}
        sweep, data = SweepSettings(**settings), self._data(work, run)
        times.switch("work")
        return train(
            data,
            Training(
                backbone=run.backbone,
                point=point,
                settings=sweep,
                epochs=sweep.final_epochs if final else sweep.sweep_epochs,
                seed=run.seed,
                mixup=work["mixup"],
                with_test=final,
            ),
            device=self._device,
            state=self._store.read(resumable) if self._store.exists(resumable) else None,
            save=times.around("write", lambda _, held: self._store.write(resumable, held)),
            save_every=self._save_every,
        )

    def _best(self, work: Mapping[str, Any]) -> Point:
        """The point with the best validation accuracy among the sweep's receipts."""
        from bob.classifier.results import select

        histories = []
        for path, point in zip(work["receipts"], work["points"], strict=True):
            rows = self._store.read_checked(path, schema.RESULTS, least=1).to_pylist()
            history = [
                {"epoch": row["epoch"], "val_accuracy": row["value"]}
                for row in rows
                if (row["split"], row["metric"]) == ("val", "accuracy")
            ]
            histories.append((Point(**point), history))
        return select(histories)

    def _data(self, work: Mapping[str, Any], run: Run) -> Any:
        """The pixels of a run, decoded once and kept while its units last."""
        from bob import backbones
        from bob.classifier.data import Data, real_arrays, synthetic_arrays
        from bob.store.images import read_images

        which = (work["dataset"], run.descriptor, work["split"], work["images"], work["copies"], run.backbone)
        if self._held is not None and self._held[0] == which:
            return self._held[1]
        with malloc.importing():
            backbone = backbones.load(run.backbone)
        dataset = datasets.load(work["dataset"], run.descriptor)
        shots = [Shot(**row) for row in self._store.read_checked(work["split"], schema.SHOTS).to_pylist()]
        split = {name: [shot for shot in shots if shot.split == name] for name in ("train", "val", "test")}
        real, real_labels = real_arrays(dataset, split["train"], backbone)
        val, val_labels = real_arrays(dataset, split["val"], backbone)
        table = read_images(self._store, work["images"]) if work["images"] else tables.from_rows([], schema.IMAGES)
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
            copies=work["copies"],
            test=lambda: real_arrays(dataset, split["test"], backbone),
        )
        self._held = (which, data)
        return data
