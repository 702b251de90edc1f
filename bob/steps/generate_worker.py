"""Worker of step 3: draws a shard with `bob.diffusion.image_generator`; on Ray it runs inside each actor."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bob import datasets, store
from bob.core import malloc
from bob.core.timing import Stopwatch
from bob.core.types import Filter, Receipt, Request, Shot, Unit
from bob.diffusion import checkpoints
from bob.store import parquet, schema, tables
from bob.store.commit import commit

__all__ = ["GenerateWorker"]

_OPEN = 256
"""Most images that a worker with a GPU holds open to start from: twice those of the paper's unit, and more."""


@dataclass(frozen=True, kw_only=True)
class _Fetched:
    """What a unit is drawn from, read from the store."""

    unit: Unit
    requests: Sequence[Request]
    dataset: str
    """Data set of the images that requests start from; empty: from none."""
    source: Callable[[str], Any] | None
    """Image id -> image."""
    rule: Filter | None
    begun: float
    """On the clock of `time.monotonic`."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A unit that the device has done."""

    unit: Unit
    rows: Callable[[Stopwatch], tuple[list[Any], list[Any]]]
    scores: Sequence[Any] | None
    """Rows of `schema.SCORES`; None without a filter."""
    times: Stopwatch
    note: str
    noted: Mapping[str, Any]


class GenerateWorker:
    """Worker of step 3: draws one slice of a request table and commits it as a shard.

    The manifest of the request table has the filter by which CLIP judges the images, if there is one. On a GPU what
    one unit is drawn from is read, and what was drawn is written, while the GPU draws another: by `stream` in one
    thread of the caller, or where `CALLS` threads call the worker.
    """

    CALLS = 2
    """Threads in which a worker with a GPU may be called at once: one draws while the other reads or writes."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._generator: Any = None
        self._requests = functools.lru_cache(maxsize=self.CALLS)(self._store.groups)
        self._dataset = functools.lru_cache(maxsize=self.CALLS)(datasets.load)
        self._shots = functools.lru_cache(maxsize=self.CALLS)(self._training_shots)
        self._adapter = functools.lru_cache(maxsize=self.CALLS)(self._files_of_adapter)
        self._open = functools.lru_cache(maxsize=_OPEN)(self._opened)
        self._overlaps = device.startswith("cuda")
        self._drawing = threading.Lock()

    def __call__(self, unit: Unit) -> Receipt:
        """Draws one slice of a request table; requests that fail go to the unit's `rejected` file."""
        return self._commit(self._draw(self._fetch(unit)))

    def stream(self, units: Iterable[Unit]) -> Iterator[Receipt]:
        """Does units one after another, and yields a receipt when the next unit is drawn; on a CPU, at once.

        Drawing stays in the caller's thread. An error of a unit is raised after the receipts of those before it.
        """
        if not self._overlaps:
            yield from map(self, units)
            return
        waiting, last = iter(units), None
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

            def ahead() -> Future[_Fetched] | None:
                unit = next(waiting, None)
                return reader.submit(self._fetch, unit) if unit else None

            fetched = ahead()
            while fetched:
                current, fetched = fetched, None
                try:
                    ready = current.result()
                    fetched = ahead()
                    drawn = self._draw(ready)
                except Exception:
                    if last:
                        yield last.result()
                    raise
                committed, last = last, writer.submit(self._commit, drawn)
                if committed:
                    yield committed.result()
            if last:
                yield last.result()

    def _fetch(self, unit: Unit) -> _Fetched:
        """Reads requests; on a GPU also their sources and the adapter, which `_draw` would read while the GPU waits."""
        begun, work = time.monotonic(), unit.work
        groups = self._requests(work.requests)
        with self._store.damaged(work.requests):
            table = tables.check(groups.slice(work.start, unit.size), schema.REQUESTS, least=unit.size)
        requests = [_request(row) for row in table.to_pylist()]
        sources = dict.fromkeys(name for request in requests for name in request.source_ids)
        rule = parquet.manifest(groups.columns, default={}).get("filter")
        open_ = functools.partial(self._open if self._overlaps else self._opened, work.dataset, work.split)
        if self._overlaps:
            if work.adapter:
                self._adapter(work.adapter)
            for name in sources:
                with contextlib.suppress(Exception):  # raised again, for its own request, where the image is drawn
                    open_(name)
        return _Fetched(
            unit=unit,
            requests=requests,
            dataset=work.dataset if sources else "",
            source=open_ if sources else None,
            rule=Filter.parse(rule) if rule else None,
            begun=begun,
            seconds=time.monotonic() - begun,
        )

    def _draw(self, fetched: _Fetched) -> _Drawn:
        """Does what needs the device, one unit at a time."""
        work = fetched.unit.work
        with self._drawing:
            times = Stopwatch(self._device, begun=None if self._overlaps else fetched.begun)
            if self._overlaps:
                times.beside("read", fetched.seconds)
            with malloc.importing():
                self._make_ready(work.checkpoint, times)
                self._generator.use(
                    work.checkpoint,
                    work.adapter,
                    lambda: self._adapter(work.adapter),
                    dataset=fetched.dataset,
                    source=fetched.source,
                )
            started = self._generator.start(fetched.requests, batch=work.batch, compile_=work.compile)
            rows, scores = started.rows, None
            if fetched.rule:
                made = rows(times)
                rows = lambda _, made=made: made  # noqa: E731
                with times("filter"):
                    scores = self._generator.score(made[0], fetched.rule)
            if self._overlaps:
                times.step_aside("write")
            return _Drawn(
                unit=fetched.unit,
                rows=rows,
                scores=scores,
                times=times,
                note=self._generator.note(),
                noted={"occupancy": self._generator.occupancy},
            )

    def _commit(self, drawn: _Drawn) -> Receipt:
        """Writes a unit; scores first, since the table of images marks it as done."""
        unit, times = drawn.unit, drawn.times
        rows, rejected = drawn.rows(times)
        if drawn.scores is not None:
            with times("filter"):
                self._store.write_table(
                    store.scores(unit.target),
                    tables.from_rows(drawn.scores, schema.SCORES),
                    store.provenance(unit.config),
                )
        return commit(unit, rows, schema.IMAGES, rejected, self._store, times=times, note=drawn.note, noted=drawn.noted)

    def _make_ready(self, checkpoint: str, times: Stopwatch) -> None:
        """Makes the generator: a simulation draws without torch, so that many processes fit one machine."""
        if checkpoints.simulated(checkpoint) is None:
            from bob.diffusion.image_generator import ImageGenerator
        else:
            from bob.diffusion.simulated import ImageGenerator
        if not isinstance(self._generator, ImageGenerator):
            self._generator = ImageGenerator(self._device)
        self._generator.times = times

    def _training_shots(self, split: str) -> dict[str, Shot]:
        rows = self._store.read_checked(split, schema.SHOTS).to_pylist()
        return {row["image_id"]: Shot(**row) for row in rows if row["split"] == "train"}

    def _opened(self, dataset: str, split: str, image_id: str) -> Any:
        return self._dataset(dataset).open(self._shots(split)[image_id])

    def _files_of_adapter(self, folder: str) -> dict[str, bytes]:
        """Returns an adapter's files, name -> content, without leftovers of a killed fine-tune."""
        from bob.diffusion import lora

        digests = self._store.manifest(f"{folder}/manifest.json").get("sha256")
        names = digests if isinstance(digests, dict) else [lora.FILE]  # the only file of earlier versions
        return {name: self._store.read(f"{folder}/{name}") for name in names}


def _request(row: Mapping[str, Any]) -> Request:
    return Request(**{name: _tuples(value) for name, value in row.items()})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
