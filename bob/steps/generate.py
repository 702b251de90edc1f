"""Step 3: images are drawn from requests (paper sec. 3.2).

`write_requests` writes the table of the method's requests, `units` cuts it into shards, which the worker of
`bob.steps.generate_worker` draws.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from bob import store
from bob.core.step_table import STEPS
from bob.core.types import Filter, Unit
from bob.diffusion import clip_filter
from bob.steps.cell import Cell, label, name, weights
from bob.store import parquet, schema, tables

__all__ = ["GenerateWork", "Requested", "units", "write_requests"]


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
    compile: str = "auto"
    """`DrawSettings.compile`."""


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
        inputs += ["compiled"] if run.draw.compile == "on" else []
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
                compile=draw.compile,
            ),
        )
