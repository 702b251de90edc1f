"""Step 3: images are drawn from requests (paper sec. 3.2).

`write_requests` writes the table of the method's requests, `units` cuts it into shards, `GenerateWorker` draws a shard
with `bob.diffusion.image_generator`. On Ray, `GenerateWorker` is what runs inside each actor of `bob/cluster/data.py`.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from bob import datasets, store
from bob.core import malloc
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Filter, Receipt, Request, Shot, Unit
from bob.diffusion import checkpoints, clip_filter
from bob.steps.cell import Cell, label, name, weights
from bob.store import parquet, schema, tables
from bob.store.commit import commit

__all__ = ["GenerateWork", "GenerateWorker", "Requested", "units", "write_requests"]


@dataclass(frozen=True, kw_only=True)
class GenerateWork:
    """Work of a unit: a slice of a request table to draw."""

    requests: str
    """Path of the request table."""
    start: int
    """First row of the slice."""
    checkpoint: str
    adapter: str
    """Folder of the adapter; empty for the bare checkpoint."""
    batch: int
    """Maximum number of images drawn at once."""
    dataset: str
    split: str
    """Path of the table of the shots that img2img starts from."""


@dataclass(frozen=True, kw_only=True)
class Requested:
    """Folder and number of the images that a run requests."""

    folder: str
    """Folder of the images, named after the requests; empty where there are none."""
    count: int


def write_requests(cell: Cell, artefacts: store.Store, *, writes: bool = True, checks: bool = True) -> Requested:
    """Collects the requests of a run's method and writes their table unless it exists.

    The requests of a provisional run are only counted, and the folder's name is then no key of them.

    Args:
        cell: the run, its adapter filled in.
        artefacts: the store of the table.
        writes: whether the table is written.
        checks: whether a table that exists is read and compared.

    Raises:
        ValueError: if the existing table is damaged.
    """
    if cell.provisional:
        return _counted(cell)
    run, sources, rule = cell.run, dict[str, None](), cell.method.filtered(cell.training)
    # Spooled to disk: the requests may exceed memory.
    with parquet.spooled(_requests(cell, sources), schema.REQUESTS) as rows:
        if not len(rows):
            return Requested(folder="", count=0)
        inputs = [STEPS["generate"].version, weights(run), run.draw.unit, *_other_inputs(cell, sources, rule)]
        requested = Requested(folder=f"images/{name(cell)}-{store.key_of_rows(inputs, rows)}", count=len(rows))
        path = f"{requested.folder}/requests.parquet"
        if checks and artefacts.exists(path):
            _require_same(path, inputs, len(rows), artefacts)  # perhaps damaged since it was written
        elif writes:
            filtering = {"filter": asdict(rule), "wanted": cell.training.budget.drawn} if rule else {}
            origin = {"inputs": inputs, "split": cell.split}
            artefacts.write_tables(path, rows, schema.REQUESTS, store.provenance(run) | origin | filtering)
        return requested


def _counted(cell: Cell) -> Requested:
    run, training = cell.run, cell.training
    if next(iter(cell.method.requests(training, draw=run.draw, seed=run.seed)), None) is None:
        return Requested(folder="", count=0)
    return Requested(
        folder=f"images/{store.key(training.dataset, run.setting, run.method, cell.adapter)}",
        count=sum(cell.method.asked(training, k) for k in range(len(training.class_names))),
    )


def _requests(cell: Cell, sources: dict[str, None]) -> Iterator[pa.Table]:
    """Yields the method's requests, a table per row group; adds the ids of their source images to `sources`."""
    requests = iter(cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed))
    while group := list(itertools.islice(requests, parquet.GROUP)):
        sources |= dict.fromkeys(name for request in group for name in request.source_ids)
        yield tables.from_rows([vars(request) | {"adapter": cell.adapter} for request in group], schema.REQUESTS)


def _require_same(path: str, inputs: Sequence[Any], length: int, artefacts: store.Store) -> None:
    groups = artefacts.groups(path)
    with artefacts.damaged(path):
        if len(groups) != length:
            raise ValueError(f"{len(groups)} rows, wanted {length}")
        key = store.key_of_rows(inputs, (tables.fit(rows, schema.REQUESTS) for rows in groups))
        if not path.endswith(f"-{key}/requests.parquet"):
            raise ValueError("its rows are not those that its folder is named after")


def _other_inputs(cell: Cell, sources: Iterable[str], rule: Filter | None) -> Iterator[Any]:
    """Yields inputs of the key besides requests and weights: hashes of the source images, and CLIP's filter."""
    sha1 = {shot.image_id: shot.sha1 for shot in cell.training.shots}
    if pixels := [sha1[name] for name in sources]:
        yield pixels
    if rule:
        yield [asdict(rule), clip_filter.revision(cell.run.checkpoint), cell.training.budget.drawn]


def units(cell: Cell) -> Iterator[Unit]:
    """Yields the shards of a run, `draw.unit` requests each; the cell has the folder and the number of its images."""
    run, draw = cell.run, cell.run.draw
    run_label, group = label(cell, "method", "checkpoint"), f"{run.checkpoint} {cell.adapter}"
    for number, start in enumerate(range(0, cell.drawn, draw.unit)):
        yield Unit(
            step="generate",
            target=f"{cell.images}/part-{number:05d}.parquet",
            label=run_label,
            size=min(draw.unit, cell.drawn - start),
            group=group,
            work=GenerateWork(
                requests=f"{cell.images}/requests.parquet",
                start=start,
                checkpoint=run.checkpoint,
                adapter=cell.adapter,
                batch=draw.batch,
                dataset=run.dataset,
                split=cell.split,
            ),
        )


class GenerateWorker:
    """Worker of step 3: draws one slice of a request table and commits it as a shard.

    The manifest of the request table has the filter by which CLIP judges the images, if there is one.
    """

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device
        self._generator: Any = None
        self._requests = functools.lru_cache(maxsize=1)(self._store.groups)
        self._shots = functools.lru_cache(maxsize=1)(self._training_shots)

    def __call__(self, unit: Unit) -> Receipt:
        """Draws one slice of a request table; requests that fail go to the unit's `rejected` file."""
        times, work = Stopwatch(self._device), unit.work
        groups = self._requests(work.requests)
        with self._store.damaged(work.requests):
            table = tables.check(groups.slice(work.start, unit.size), schema.REQUESTS, least=unit.size)
        requests = [_request(row) for row in table.to_pylist()]
        shots = self._shots(work.split) if any(request.source_ids for request in requests) else {}
        dataset = datasets.load(work.dataset) if shots else None
        with malloc.importing():
            self._make_ready(work.checkpoint, times)
            self._generator.use(
                work.checkpoint,
                work.adapter,
                lambda: self._adapter(work.adapter),
                dataset=work.dataset if shots else "",
                source=dataset and (lambda image_id: dataset.open(shots[image_id])),
            )
        rows, rejected = self._generator.draw(requests, batch=work.batch)
        rule = parquet.manifest(groups.columns, default={}).get("filter")
        if rule:
            with times("filter"):
                scores = self._generator.score(rows, Filter.parse(rule))
            self._store.write_table(
                store.scores(unit.target), tables.from_rows(scores, schema.SCORES), store.provenance(unit.config)
            )
        generator, occupancy = self._generator, {"occupancy": self._generator.occupancy}
        return commit(
            unit, rows, schema.IMAGES, rejected, self._store, times=times, note=generator.note(), noted=occupancy
        )

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

    def _adapter(self, folder: str) -> dict[str, bytes]:
        """Returns an adapter's files, name -> content, without leftovers of a killed fine-tune."""
        from bob.diffusion import lora

        digests = self._store.manifest(f"{folder}/manifest.json").get("sha256")
        names = digests if isinstance(digests, dict) else [lora.FILE]  # the only file of earlier versions
        return {name: self._store.read(f"{folder}/{name}") for name in names}


def _request(row: Mapping[str, Any]) -> Request:
    return Request(**{name: _tuples(value) for name, value in row.items()})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
