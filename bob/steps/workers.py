"""What a worker process does with one unit, for each step: read inputs, call the step, commit.

The same classes run inline in a for-loop and inside Ray's actors. They load their model at the
first unit and keep it; a unit is committed by the worker itself, and only its receipt goes back.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from bob import datasets, store
from bob.core import malloc
from bob.core.settings import FinetuneSettings
from bob.core.timing import Stopwatch
from bob.core.types import (
    Filter,
    Receipt,
    Request,
    Shot,
    TrainPair,
    Tuning,
    Unit,
)
from bob.diffusion import checkpoints
from bob.steps.ask_worker import CaptionWorker, RecogniseWorker
from bob.steps.classify import ClassifyWorker
from bob.steps.embed import EmbedWorker
from bob.store import parquet, schema, tables
from bob.store.commit import commit

__all__ = ["WORKERS", "Worker", "inline"]


class Worker(Protocol):
    """Does units of one step."""

    def __call__(self, unit: Unit) -> Receipt:
        """Does one unit and commits it."""
        ...


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
        report: Callable[[int, float], None] | None = None,
    ) -> Receipt:
        """Trains the adapter, writes it and then its manifest.

        Args:
            unit: what to train.
            state: what `save` was given last, to resume from; by default the store's own copy.
            save: (steps done, state) -> nothing; by default keeps the state in the store.
            tell: shows a line of progress; by default prints it.
            report: is given the curve of the loss as it comes, as `training.Callbacks` says.
        """
        times, work = Stopwatch(self._device), unit.work
        with malloc.importing():
            import torch

            from bob.diffusion import training

            pipeline = checkpoints.load(work["checkpoint"], device=torch.device(self._device), dtype=torch.float32)
        folder = unit.target.rpartition("/")[0]
        resumable = f"{folder}/state.pt"
        if state is None and self._store.exists(resumable):
            state = self._store.read(resumable)
        dataset = datasets.load(work["dataset"])
        shots = {shot["image_id"]: Shot(**shot) for shot in work["shots"]}
        pairs = [TrainPair(**pair) for pair in work["pairs"]]
        tuning = Tuning.parse(work["tuning"])
        shown = training.Pairs([dataset.open(shots[p.image_id]) for p in pairs], [p.prompt for p in pairs])
        times.switch("work")
        training.train(
            pipeline,
            shown,
            settings=FinetuneSettings(**{**work["settings"], "keep": tuple(work["settings"]["keep"])}),
            seed=work["seed"],
            tuning=tuning,
            state=state,
            callbacks=training.Callbacks(
                save=times.around("write", save or (lambda _, held: self._store.write(resumable, held))),
                keep=times.around(
                    "write", lambda epoch, files: self._write(f"{folder}/epoch-{epoch}", files, work, times)
                ),
                tell=tell or (lambda words: print(f"  {unit.label}: {words}", flush=True)),
                report=report,
            ),
        )
        times.switch("write")
        self._write(folder, training.adapter(pipeline, tuning), work, times)
        self._store.delete(resumable)
        return Receipt(target=unit.target, label=unit.label, size=unit.size, times=times.times())

    def _write(self, folder: str, files: Mapping[str, bytes], work: Mapping[str, Any], times: Stopwatch) -> None:
        """An adapter's files, and then the manifest whose presence means that they are all there."""
        for name, content in files.items():
            self._store.write(f"{folder}/{name}", content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._store.write_json(f"{folder}/manifest.json", store.provenance(work, times=times) | {"sha256": digests})


class GenerateWorker:
    """Step 3. A unit's work: requests (path), start, checkpoint, adapter (folder), batch, dataset, split (path).

    The table of requests says by which rule CLIP judges the images, if any; that of the split, what img2img
    requests start from.
    """

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._painter: Any = None
        self._asked = functools.lru_cache(maxsize=1)(self._store.groups)
        self._shots = functools.lru_cache(maxsize=1)(self._training_shots)

    def __call__(self, unit: Unit) -> Receipt:
        """Draws one slice of a request table; what could not be drawn goes to the unit's `rejected` file."""
        times, work = Stopwatch(self._device), unit.work
        asked, adapter = self._asked(work["requests"]), work["adapter"]
        with self._store.damaged(work["requests"]):
            table = tables.check(asked.slice(work["start"], unit.size), schema.REQUESTS, least=unit.size)
        requests = [_request(row) for row in table.to_pylist()]
        shots = self._shots(work["split"]) if any(request.source_ids for request in requests) else {}
        dataset = datasets.load(work["dataset"]) if shots else None
        with malloc.importing():
            self._make_ready(work["checkpoint"], times)
            self._painter.use(
                work["checkpoint"],
                adapter,
                lambda: self._adapter(adapter),
                dataset=work["dataset"] if shots else "",
                source=dataset and (lambda image_id: dataset.open(shots[image_id])),
            )
        rows, rejected = self._painter.draw(requests, batch=work["batch"])
        rule = parquet.manifest(asked.columns, default={}).get("filter")
        if rule:
            with times("filter"):
                judged = self._painter.judge(rows, Filter.parse(rule))
            self._store.write_table(
                store.scores(unit.target), tables.from_rows(judged, schema.SCORES), store.provenance(work)
            )
        painter, occupancy = self._painter, {"occupancy": self._painter.occupancy}
        return commit(
            unit, rows, schema.IMAGES, rejected, self._store, times=times, note=painter.note(), noted=occupancy
        )

    def _make_ready(self, checkpoint: str, times: Stopwatch) -> None:
        """A simulation is painted without torch, so that many processes fit one machine."""
        if checkpoints.simulated(checkpoint) is None:
            from bob.diffusion.image_generator import ImageGenerator
        else:
            from bob.diffusion.simulated import ImageGenerator
        if not isinstance(self._painter, ImageGenerator):
            self._painter = ImageGenerator(self._device)
        self._painter.times = times

    def _training_shots(self, split: str) -> dict[str, Shot]:
        rows = self._store.read_checked(split, schema.SHOTS).to_pylist()
        return {row["image_id"]: Shot(**row) for row in rows if row["split"] == "train"}

    def _adapter(self, folder: str) -> dict[str, bytes]:
        """The files of an adapter, without what a killed fine-tune may have left."""
        from bob.diffusion import lora

        noted = self._store.manifest(f"{folder}/manifest.json").get("sha256")
        names = noted if isinstance(noted, dict) else [lora.FILE]  # earlier versions made no other
        return {name: self._store.read(f"{folder}/{name}") for name in names}


WORKERS: dict[str, Callable[..., Worker]] = {
    "caption": CaptionWorker,
    "finetune": FinetuneWorker,
    "generate": GenerateWorker,
    "embed": EmbedWorker,
    "recognise": RecogniseWorker,
    "classify": ClassifyWorker,
}
"""Step -> (root, device=...) -> worker."""


def inline(device: str) -> Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]:
    """An executor that does everything in this process, one unit after another."""

    def run(step: str, units: Sequence[Unit], artefacts: store.Store) -> Iterator[Receipt]:
        malloc.keep_freed()
        worker = WORKERS[step](artefacts.root, device=device)
        for unit in units:
            yield worker(unit)

    return run


def _request(row: Mapping[str, Any]) -> Request:
    return Request(**{name: _tuples(value) for name, value in row.items()})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
