"""What a worker process does with one unit, for each step: read inputs, call the step, commit.

The same classes run inline in a for-loop and inside Ray's actors. They load their model at the
first unit and keep it; a unit is committed by the worker itself, and only its receipt goes back.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from bob import datasets, schema, store
from bob.settings import FinetuneSettings, Point, Run, SweepSettings
from bob.types import Filter, Receipt, Request, Shot, Token, TrainPair, Tuning, Unit

__all__ = ["WORKERS", "Worker", "inline"]

_SAVE_EVERY = 60.0
"""Seconds that a classifier trains before its state is worth writing."""
_ATTEMPTS = 3
"""At a training that memory does not hold: others on the same device may have finished by the next."""


class Worker(Protocol):
    """Does units of one step."""

    def __call__(self, unit: Unit) -> Receipt:
        """Does one unit and commits it."""
        ...


class CaptionWorker:
    """Step 1. A unit's work: captioner, dataset, descriptor, shots."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._readers: dict[tuple[str, str, str], Any] = {}

    def __call__(self, unit: Unit) -> Receipt:
        """Captions the unit's shots; one that could not be read goes to the unit's `rejected` file."""
        from bob import caption

        start, work = time.monotonic(), unit.work
        which = (work["captioner"], work["dataset"], work["descriptor"])
        if which not in self._readers:
            captioner, dataset, descriptor = which
            self._readers = {
                which: caption.Reader(captioner=captioner, dataset=dataset, descriptor=descriptor, device=self._device)
            }
        reader = self._readers[which]
        rows, rejected = reader([Shot(**shot) for shot in work["shots"]])
        return _committed(unit, rows, schema.CAPTIONS, rejected, self._store, start=start, note=reader.note())


class FinetuneWorker:
    """Step 2. A unit's work: dataset, checkpoint, settings, seed, shots, pairs, tuning."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device

    def __call__(
        self,
        unit: Unit,
        *,
        state: bytes | None = None,
        save: Callable[[int, bytes], None] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Receipt:
        """Trains the adapter, writes it and then its manifest.

        Args:
            unit: what to train.
            state: what `save` was given last, to resume from; by default the store's own copy.
            save: (steps done, state) -> nothing; by default keeps the state in the store.
            tell: shows a line of progress; by default prints it.
        """
        import torch

        from bob import finetune
        from bob.diffusion import checkpoints

        start, work = time.monotonic(), unit.work
        folder = unit.target.rpartition("/")[0]
        resumable = f"{folder}/state.pt"
        if state is None and self._store.exists(resumable):
            state = self._store.read(resumable)
        dataset = datasets.load(work["dataset"])
        shots = {shot["image_id"]: Shot(**shot) for shot in work["shots"]}
        pairs = [TrainPair(**pair) for pair in work["pairs"]]
        pipeline = checkpoints.load(work["checkpoint"], device=torch.device(self._device), dtype=torch.float32)
        tuning = _tuning(work["tuning"])
        finetune.train(
            pipeline,
            finetune.Pairs([dataset.open(shots[p.image_id]) for p in pairs], [p.prompt for p in pairs]),
            settings=FinetuneSettings(**work["settings"]),
            seed=work["seed"],
            tuning=tuning,
            state=state,
            save=save or (lambda _, held: self._store.write(resumable, held)),
            tell=tell or (lambda words: print(f"  {unit.label}: {words}", flush=True)),
        )
        seconds = time.monotonic() - start
        files = finetune.adapter(pipeline, tuning)
        for name, content in files.items():
            self._store.write(f"{folder}/{name}", content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._store.write_json(unit.target, store.provenance(work, seconds=seconds) | {"sha256": digests})
        self._store.delete(resumable)
        return Receipt(target=unit.target, label=unit.label, size=unit.size, seconds=seconds)


class GenerateWorker:
    """Step 3. A unit's work: requests (path), start, checkpoint, adapter (folder), batch, dataset, shots, filter.

    `shots` are those that its requests start from; `filter` is None, or the rule by which CLIP judges its images.
    """

    def __init__(self, root: str, *, device: str) -> None:
        from bob import generate

        self._store = store.Store(root)
        self._painter = generate.Painter(device)

    def __call__(self, unit: Unit) -> Receipt:
        """Draws one slice of a request table; what could not be drawn goes to the unit's `rejected` file."""
        start, work = time.monotonic(), unit.work
        table = self._store.read_checked(work["requests"], schema.REQUESTS).slice(work["start"], unit.size)
        requests = [_request(row) for row in table.to_pylist()]
        adapter, shots = work["adapter"], {shot["image_id"]: Shot(**shot) for shot in work["shots"]}
        dataset = datasets.load(work["dataset"]) if shots else None
        self._painter.use(
            work["checkpoint"],
            adapter,
            lambda: self._adapter(adapter),
            dataset=work["dataset"] if shots else "",
            source=dataset and (lambda image_id: dataset.open(shots[image_id])),
        )
        rows, rejected = self._painter.draw(requests, batch=work["batch"])
        if work["filter"] is not None:
            judged = self._painter.judge(rows, _filter(work["filter"]))
            self._store.write_table(
                store.scores(unit.target), schema.table(judged, schema.SCORES), store.provenance(work)
            )
        return _committed(unit, rows, schema.IMAGES, rejected, self._store, start=start, note=self._painter.note())

    def _adapter(self, folder: str) -> dict[str, bytes]:
        """The files of an adapter, without what a killed fine-tune may have left."""
        from bob.diffusion import lora

        noted = self._store.manifest(f"{folder}/manifest.json").get("sha256")
        names = noted if isinstance(noted, dict) else [lora.FILE]  # earlier versions made no other
        return {name: self._store.read(f"{folder}/{name}") for name in names}


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
        from bob import classify, memory

        start, work, why = time.monotonic(), unit.work, ""
        history: list[dict[str, Any]] = []
        point = self._best(work) if work["phase"] == "final" else Point(**work["point"])
        for attempt in range(1, _ATTEMPTS + 1):
            history.clear()
            try:
                for row in self._train(unit, point):
                    history.append(row)
                    if report is not None:
                        report(row)
                break
            except (MemoryError, RuntimeError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                why = f"out of memory {attempt} times ({str(error).strip().partition(chr(10))[0]})"
            memory.release()  # out here, where no exception holds tensors any more
        else:
            history.append(classify.failure(len(history) + 1) | {"train_n": 0, "val_n": 0})
        if work["phase"] == "final" and classify.has_failed(history) and (why or len(history) == 1):
            why = why or "its loss is not finite"
            raise ValueError(
                f"{unit.label} broke off in epoch {len(history)}: {why}; look at its batch and its learning rate"
            )
        return self.commit(unit, history, point=point, start=start, why=why)

    def commit(
        self, unit: Unit, history: Sequence[dict[str, Any]], *, point: Point, start: float, why: str = ""
    ) -> Receipt:
        """Writes the table of a training.

        Args:
            unit: what was trained.
            history: the rows of its epochs.
            point: what it was trained with.
            start: when it began, by `time.monotonic`.
            why: it broke off, if it did and its loss was finite.
        """
        from bob import classify

        work, run = unit.work, Run(**unit.work["coordinates"])
        broke = f"broke off in epoch {len(history)}: {why or 'its loss is not finite'}"
        failed = classify.has_failed(history)
        rows = classify.result_rows(
            history, run=run, key=work["run"], phase=work["phase"], point=point, groups=work["groups"]
        )
        manifest = store.provenance(work, seconds=time.monotonic() - start) | ({"failure": broke} if failed else {})
        self._store.write_table(unit.target, schema.table(rows, schema.RESULTS), manifest)
        self._store.delete(f"{unit.target}.state.pt")
        best = max((row["val_accuracy"] for row in history if math.isfinite(row["val_accuracy"])), default=math.nan)
        note = "" if math.isnan(best) else f"best validation accuracy {best:.1%}"
        if failed:
            note = broke + (", so it is not selected" if work["phase"] == "sweep" else f"; {note} before")
        return Receipt(
            target=unit.target, label=unit.label, size=unit.size, seconds=time.monotonic() - start, note=note
        )

    def _train(self, unit: Unit, point: Point) -> Iterator[dict[str, Any]]:
        from bob import classify

        work, run = unit.work, Run(**unit.work["coordinates"])
        final, resumable = work["phase"] == "final", f"{unit.target}.state.pt"
        sweep = SweepSettings(**{name: _tuples(value) for name, value in work["sweep"].items()})
        return classify.train(
            self._data(work, run),
            run.backbone,
            point,
            settings=sweep,
            epochs=sweep.final_epochs if final else sweep.sweep_epochs,
            seed=run.seed,
            mixup=work["mixup"],
            with_test=final,
            device=self._device,
            state=self._store.read(resumable) if self._store.exists(resumable) else None,
            save=lambda _, held: self._store.write(resumable, held),
            save_every=self._save_every,
        )

    def _best(self, work: Mapping[str, Any]) -> Point:
        """The point with the best validation accuracy among the sweep's receipts."""
        from bob import classify

        histories = []
        for path, point in zip(work["receipts"], work["points"], strict=True):
            rows = self._store.read_checked(path, schema.RESULTS, least=1).to_pylist()
            history = [
                {"epoch": row["epoch"], "val_accuracy": row["value"]}
                for row in rows
                if (row["split"], row["metric"]) == ("val", "accuracy")
            ]
            histories.append((Point(**point), history))
        return classify.select(histories)

    def _data(self, work: Mapping[str, Any], run: Run) -> Any:
        """The pixels of a run, decoded once and kept while its units last."""
        from bob import backbones, pixels

        which = (work["dataset"], run.descriptor, work["split"], work["images"], work["copies"], run.backbone)
        if self._held is not None and self._held[0] == which:
            return self._held[1]
        dataset, backbone = datasets.load(work["dataset"], run.descriptor), backbones.load(run.backbone)
        shots = [Shot(**row) for row in self._store.read_checked(work["split"], schema.SHOTS).to_pylist()]
        split = {name: [shot for shot in shots if shot.split == name] for name in ("train", "val", "test")}
        real, real_labels = pixels.real_arrays(dataset, split["train"], backbone)
        val, val_labels = pixels.real_arrays(dataset, split["val"], backbone)
        table = pixels.read_images(self._store, work["images"]) if work["images"] else schema.table([], schema.IMAGES)
        synthetic, labels = pixels.synthetic_arrays(table, backbone, classes=len(dataset.class_names))
        data = pixels.Data(
            class_names=dataset.class_names,
            descriptor=dataset.descriptor,
            real=real,
            real_labels=real_labels,
            val=val,
            val_labels=val_labels,
            synthetic=synthetic,
            synthetic_labels=labels,
            copies=work["copies"],
            test=lambda: pixels.real_arrays(dataset, split["test"], backbone),
        )
        self._held = (which, data)
        return data


WORKERS: dict[str, Callable[..., Worker]] = {
    "caption": CaptionWorker,
    "finetune": FinetuneWorker,
    "generate": GenerateWorker,
    "classify": ClassifyWorker,
}
"""Step -> (root, device=...) -> worker."""


def inline(device: str) -> Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]:
    """An executor that does everything in this process, one unit after another."""

    def run(step: str, units: Sequence[Unit], artefacts: store.Store) -> Iterator[Receipt]:
        worker = WORKERS[step](artefacts.root, device=device)
        for unit in units:
            yield worker(unit)

    return run


def _committed(
    unit: Unit,
    rows: Sequence[Mapping[str, Any]],
    columns: pa.Schema,
    rejected: Sequence[Mapping[str, Any]],
    artefacts: store.Store,
    *,
    start: float,
    note: str,
) -> Receipt:
    """Writes what could not be done and then, for its presence says that the unit is done, what could."""
    seconds = time.monotonic() - start
    manifest = store.provenance(unit.work, seconds=seconds)
    quarantine = store.quarantine(unit.target)
    artefacts.delete(quarantine)  # of an earlier attempt
    if rejected:
        artefacts.write_table(quarantine, schema.table(rejected, schema.REJECTED), manifest)
    artefacts.write_table(unit.target, schema.table(rows, columns), manifest)
    return Receipt(
        target=unit.target, label=unit.label, size=unit.size, rejected=len(rejected), seconds=seconds, note=note
    )


def _request(row: Mapping[str, Any]) -> Request:
    return Request(**{name: _tuples(value) for name, value in row.items()})


def _tuning(plain: Mapping[str, Any]) -> Tuning:
    fields: dict[str, Any] = {name: _tuples(value) for name, value in plain.items()}
    return Tuning(**(fields | {"tokens": tuple(Token(**token) for token in plain["tokens"])}))


def _filter(plain: Mapping[str, Any]) -> Filter:
    return Filter(**{name: _tuples(value) for name, value in plain.items()})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
