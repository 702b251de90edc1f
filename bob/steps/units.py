"""Runs -> work units: what each step has to make for them, named by all that it depends on.

Captions, adapters and images are shared by every run that needs them: one adapter serves three
backbones. A unit's path holds the key of its inputs, of the weights and of the step's version.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from bob import backbones, captioners, methods, store
from bob.core.settings import Point, Run
from bob.core.step_table import STEPS
from bob.core.types import (
    Filter,
    Shot,
    TrainingSet,
    TrainPair,
    Tuning,
    Unit,
)
from bob.diffusion import checkpoints, clip_filter
from bob.store import parquet, schema, tables

__all__ = ["Cell", "ask", "captions", "final", "finetune", "generations", "label", "sweep"]

_CAPTION_UNIT = 32  # shots


@dataclasses.dataclass
class Cell:
    """A run on its way through the steps: paths in the store as far as they are known."""

    run: Run
    method: methods.Method
    split: str
    training: TrainingSet
    captions: tuple[str, ...] = ()
    adapter: str = ""
    images: str = ""
    drawn: int = 0
    """How many images that folder is to hold."""
    final: str = ""
    provisional: bool = False
    """Whether its pictures or its captions are made up, so that its keys are not those of the run itself."""
    groups: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Of a long tail: class ids of the many-, medium- and few-shot classes."""


def captions(cell: Cell) -> Iterator[Unit]:
    """Step 1: slices of each rank, so that the units of 10 shots contain those of 5."""
    if not cell.method.needs_captions:
        return
    training, captioner = cell.training, cell.run.captioner
    revision = captioners.revision(captioner)
    for rank, shots in enumerate(_ranks(training)):
        for start in range(0, len(shots), _CAPTION_UNIT):
            some = shots[start : start + _CAPTION_UNIT]
            pictures = [(shot.image_id, shot.sha1) for shot in some]
            inputs = [STEPS["caption"], captioner, revision, training.descriptor, training.class_names, pictures]
            yield Unit(
                step="caption",
                target=f"captions/{store.slug(captioner)}-{store.key(*inputs)}.parquet",
                label=f"{training.dataset} shot {rank + 1} of classes {some[0].class_id} to {some[-1].class_id}",
                size=len(some),
                group=captioner,
                work={
                    "captioner": captioner,
                    "dataset": cell.run.dataset,
                    "descriptor": training.descriptor,
                    "shots": [dataclasses.asdict(shot) for shot in some],
                    "inputs": inputs,
                },
            )


def _ranks(training: TrainingSet) -> list[list[Shot]]:
    """The first shot of every class, then the second of every class that has one, and so on."""
    classes = [list(same) for _, same in itertools.groupby(training.shots, key=lambda shot: shot.class_id)]
    return [[shot for shot in rank if shot] for rank in itertools.zip_longest(*classes)]


def finetune(cell: Cell) -> Iterator[Unit]:
    """Step 2: the adapter, where the method tunes one; its folder is noted in the cell."""
    run, pairs = cell.run, cell.method.train_pairs(cell.training)
    if not pairs or checkpoints.simulated(run.checkpoint) is not None:
        return
    tuning = cell.method.tuning(cell.training)
    recipe = {k: v for k, v in dataclasses.asdict(run.finetune).items() if k != "checkpoint_every"}
    for name in ("total_steps", "keep"):
        if not recipe[name]:
            del recipe[name]  # keys are older than this setting
    inputs = [STEPS["finetune"], _weights(run), recipe, run.seed, _content(cell.training, pairs)]
    if tuning != Tuning():
        inputs.append(dataclasses.asdict(tuning))
    # Without the method's name, for methods that tune on the same pairs share their adapter.
    name = store.slug(f"{cell.training.dataset} {run.checkpoint}")
    folder = f"adapters/{name}-{run.setting}-{store.key(*inputs)}"
    cell.adapter = f"{folder}/epoch-{run.after}" if run.after else folder
    yield Unit(
        step="finetune",
        target=f"{folder}/manifest.json",
        label=label(cell, "method", "checkpoint"),
        size=run.finetune.steps(tuning.epoch([pair.prompt for pair in pairs])),
        work={
            "dataset": run.dataset,
            "checkpoint": run.checkpoint,
            "settings": dataclasses.asdict(run.finetune),
            "seed": run.seed,
            "shots": [dataclasses.asdict(shot) for shot in cell.training.shots],
            "pairs": [dataclasses.asdict(pair) for pair in pairs],
            "tuning": dataclasses.asdict(tuning),
            "inputs": inputs,
        },
    )


def _content(training: TrainingSet, pairs: Sequence[TrainPair]) -> list[tuple[str, str]]:
    sha1 = {shot.image_id: shot.sha1 for shot in training.shots}
    return [(sha1[pair.image_id], pair.prompt) for pair in pairs]


def generations(cell: Cell, artefacts: store.Store, *, writes: bool = True) -> Iterator[Unit]:
    """Step 3: slices of the request table, which is written here unless it is there.

    Args:
        cell: with its adapter; is given the folder of its images, which is named after the requests, and their number.
        artefacts: where the request table is kept.
        writes: False: the table is not written. That of a provisional run is not made at all: its requests are counted.
    """
    if cell.provisional:
        _count(cell)
    else:
        ask(cell, artefacts, writes=writes)
    return _slices(cell)


def _count(cell: Cell) -> None:
    """Notes how many images are to be drawn, and a name for their folder that is no key of their requests."""
    run, training = cell.run, cell.training
    if next(iter(cell.method.requests(training, draw=run.draw, seed=run.seed)), None) is not None:
        cell.drawn = sum(cell.method.asked(training, k) for k in range(len(training.class_names)))
        cell.images = f"images/{store.key(training.dataset, run.setting, run.method, cell.adapter)}"


def _slices(cell: Cell) -> Iterator[Unit]:
    run, draw = cell.run, cell.run.draw
    name, group = label(cell, "method", "checkpoint"), f"{run.checkpoint} {cell.adapter}"
    for number, start in enumerate(range(0, cell.drawn, draw.unit)):
        yield Unit(
            step="generate",
            target=f"{cell.images}/part-{number:05d}.parquet",
            label=name,
            size=min(draw.unit, cell.drawn - start),
            group=group,
            work={
                "requests": f"{cell.images}/requests.parquet",
                "start": start,
                "checkpoint": run.checkpoint,
                "adapter": cell.adapter,
                "batch": draw.batch,
                "dataset": run.dataset,
                "split": cell.split,
            },
        )


def ask(cell: Cell, artefacts: store.Store, *, writes: bool = True) -> None:
    """Notes in the cell how many images are to be drawn, and the folder that is named after the requests."""
    run, sources, rule = cell.run, dict[str, None](), cell.method.filtered(cell.training)
    # By way of a disk, for there may be more than memory holds.
    with parquet.spooled(_requests(cell, sources), schema.REQUESTS) as rows:
        if not len(rows):
            return
        inputs = [STEPS["generate"], _weights(run), run.draw.unit, *_beside(cell, sources, rule)]
        cell.drawn, cell.images = len(rows), f"images/{_name(cell)}-{store.key_of_rows(inputs, rows)}"
        path = f"{cell.images}/requests.parquet"
        if artefacts.exists(path):
            _require_same(path, inputs, len(rows), artefacts)  # perhaps damaged since it was written
            return
        if not writes:
            return
        kept = {"filter": dataclasses.asdict(rule), "wanted": cell.training.budget.drawn} if rule else {}
        origin = {"inputs": inputs, "split": cell.split}
        artefacts.write_tables(path, rows, schema.REQUESTS, store.provenance(run) | origin | kept)


def _requests(cell: Cell, sources: dict[str, None]) -> Iterator[pa.Table]:
    """What the method asks for, in tables of a row group; notes the ids of the real images that it starts from."""
    asked = iter(cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed))
    while some := list(itertools.islice(asked, parquet.GROUP)):
        sources |= dict.fromkeys(name for request in some for name in request.source_ids)
        yield tables.from_rows([vars(request) | {"adapter": cell.adapter} for request in some], schema.REQUESTS)


def _require_same(path: str, inputs: Sequence[Any], length: int, artefacts: store.Store) -> None:
    held = artefacts.groups(path)
    with artefacts.damaged(path):
        if len(held) != length:
            raise ValueError(f"{len(held)} rows, wanted {length}")
        found = store.key_of_rows(inputs, (tables.fit(rows, schema.REQUESTS) for rows in held))
        if not path.endswith(f"-{found}/requests.parquet"):
            raise ValueError("its rows are not those that its folder is named after")


def _beside(cell: Cell, sources: Iterable[str], rule: Filter | None) -> Iterator[Any]:
    """What images depend on beside requests and weights: the pixels they start from, and what judges them."""
    sha1 = {shot.image_id: shot.sha1 for shot in cell.training.shots}
    if pixels := [sha1[name] for name in sources]:
        yield pixels
    if rule:
        yield [dataclasses.asdict(rule), clip_filter.revision(cell.run.checkpoint), cell.training.budget.drawn]


def sweep(cell: Cell) -> Iterator[Unit]:
    """Step 4, the short trainings: one for each point of the grid."""
    work, points = _classify_work(cell), _points(cell)
    for number, point in enumerate(points):
        yield Unit(
            step="classify",
            target=f"results/{_name(cell)}-{work['run']}/sweep-{number:03d}.parquet",
            label=f"{label(cell, 'method', 'backbone')} {number + 1} of {len(points)}",
            size=cell.run.sweep.sweep_epochs,
            group=work["run"],
            work={**work, "phase": "sweep", "point": dataclasses.asdict(point)},
        )


def final(cell: Cell, swept: Sequence[Unit]) -> Unit:
    """Step 4, the long training with the best of what was swept; its table is noted in the cell."""
    work = swept[0].work
    cell.final = f"results/{_name(cell)}-{work['run']}/final.parquet"
    return Unit(
        step="classify",
        target=cell.final,
        label=f"{label(cell, 'method', 'backbone')} final",
        size=cell.run.sweep.final_epochs,
        group=work["run"],
        work={
            **{name: value for name, value in work.items() if name != "point"},
            "phase": "final",
            "receipts": [unit.target for unit in swept],
            "points": [unit.work["point"] for unit in swept],
        },
    )


def _classify_work(cell: Cell) -> dict[str, Any]:
    run = cell.run
    names = ("descriptor", "shots", "method", "checkpoint", "backbone", "seed")
    coordinates = {"dataset": cell.training.dataset} | {name: getattr(run, name) for name in names}
    budget, backbone = cell.training.budget, backbones.load(run.backbone)
    copies = budget.copies if cell.images else budget.alone
    identity = [STEPS["classify"], backbone.revision]
    parts = [*identity, coordinates, run.sweep, cell.split, cell.images, cell.method.mixup, copies]
    inputs = store.plain(parts)  # units travel as JSON: the sweep's settings have to keep their name
    return {
        "run": store.key(*inputs),
        "inputs": inputs,
        "coordinates": coordinates,
        "dataset": run.dataset,
        "split": cell.split,
        "images": cell.images,
        "copies": copies,
        "mixup": cell.method.mixup,
        "groups": cell.groups,
        # A picture's time x pictures of an epoch: longer trainings begin first.
        "cost": backbone.cost * (len(cell.training.shots) * copies + cell.drawn),
        "sweep": dataclasses.asdict(run.sweep),
    }


def _points(cell: Cell) -> tuple[Point, ...]:
    return cell.run.sweep.points(has_synthetic=bool(cell.images), seed=cell.run.seed)


def _weights(run: Run) -> tuple[str, str]:
    return run.checkpoint, checkpoints.revision(run.checkpoint)


def _name(cell: Cell) -> str:
    run = cell.run
    return f"{store.slug(f'{cell.training.dataset} {run.method} {run.checkpoint}')}-{run.setting}"


def label(cell: Cell, *coordinates: str) -> str:
    """For people: a run's data set, setting and seed, and these of its coordinates."""
    shots = f"{cell.run.shots}-shot " if cell.run.shots else ""
    words = " ".join(getattr(cell.run, name) for name in coordinates)
    return f"{cell.training.dataset} {shots}seed {cell.run.seed} {words}"
