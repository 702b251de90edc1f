"""Runs -> the graph of work units -> results: deduplicated, skipping what exists.

Captions, adapters and images are shared by every run that needs them: one adapter serves three
backbones. A unit's path holds a hash of all that it depends on, so the same command resumes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from bob import backbones, datasets, methods, registry, schema, store
from bob.diffusion import checkpoints
from bob.settings import Run
from bob.types import Context, Outcome, Receipt, TrainingSet, TrainPair, Unit
from bob.versions import STEPS

__all__ = ["Executor", "Report", "execute"]

Executor = Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]
"""(step, units, store) -> a receipt for each unit as it is done, in any order."""

Report = Callable[[str, int, int, Iterator[Receipt]], Iterable[Receipt]]
"""(step, units to do, units done before, receipts) -> the receipts, shown to the user in passing."""

_CAPTION_UNIT = 32  # shots


@dataclasses.dataclass
class _Cell:
    """A run on its way through the steps; becomes an `Outcome`."""

    run: Run
    method: methods.Method
    split: str
    training: TrainingSet
    adapter: str = ""
    images: str = ""
    final: str = ""


def execute(
    runs: Sequence[Run], *, artefacts: store.Store, executor: Executor, report: Report, max_rejected: int = 0
) -> list[Outcome]:
    """Does all that the runs need and is not there yet.

    Args:
        runs: the cells to fill.
        artefacts: where everything is kept.
        executor: inline or on a cluster.
        report: shows progress.
        max_rejected: rows that may be quarantined before the whole fails at the end.

    Returns:
        What each run has come to, in their order.

    Raises:
        ValueError: for anything a user can mend, and if more than `max_rejected` rows were rejected.
    """
    for run in runs:
        registry.require("captioner", run.captioner.partition(":")[0])
        registry.require("backbone", run.backbone)
        checkpoints.settings(run.checkpoint)
    artefacts.require_writable()
    cells = [_split(run, artefacts) for run in runs]

    def do(step: str, units: Iterable[Unit]) -> None:
        wanted = {unit.target: unit for unit in units}
        todo = [unit for unit in wanted.values() if not artefacts.exists(unit.target)]
        todo.sort(key=lambda unit: unit.group)  # stable: neighbours share a model
        if wanted:
            receipts = executor(step, todo, artefacts) if todo else iter(())
            for _ in report(step, len(todo), len(wanted) - len(todo), receipts):
                pass

    do("caption", _captions(cells))
    _read_captions(cells, artefacts)
    do("finetune", _finetunes(cells))
    do("generate", _generations(cells, artefacts))
    rejected = _rejected(cells, artefacts)
    if rejected > max_rejected:
        raise ValueError(
            f"{rejected} rows were rejected, at most {max_rejected} may be: read the *.rejected.parquet files in "
            f"{artefacts.root}, or raise --max-rejected. All that was not rejected is kept"
        )
    do("classify", (unit for cell in cells for unit in _sweep(cell)))
    do("classify", (_final(cell) for cell in cells))
    return [_outcome(cell) for cell in cells]


def _outcome(cell: _Cell) -> Outcome:
    shots = cell.training.shots
    return Outcome(
        run=cell.run, shots=shots, split=cell.split, adapter=cell.adapter, images=cell.images, final=cell.final
    )


def _split(run: Run, artefacts: store.Store) -> _Cell:
    """Draws the shots of a run, writes their table and checks that each can be opened."""
    dataset = datasets.load(run.dataset, run.descriptor)
    method = methods.load(run.method)
    shots = dataset.split(shots=run.shots, val=run.val, seed=run.seed)
    identity = store.key([(s.image_id, s.sha1, s.class_id, s.split) for s in shots], dataset.class_names)
    path = f"shots/{store.slug(run.dataset)}-{run.shots}shot-s{run.seed}-{identity}.parquet"
    if not artefacts.exists(path):
        for shot in shots:
            if shot.split != "test":
                dataset.open(shot)
        table = schema.table([dataclasses.asdict(shot) for shot in shots], schema.SHOTS)
        artefacts.write_table(path, table, store.provenance({"dataset": run.dataset, "seed": run.seed}))
    training = TrainingSet(
        dataset=run.dataset,
        descriptor=dataset.descriptor,
        class_names=dataset.class_names,
        shots=tuple(shot for shot in shots if shot.split == "train"),
    )
    return _Cell(run, method, path, training)


def _captions(cells: Sequence[_Cell]) -> Iterator[Unit]:
    for cell in cells:
        if cell.method.needs_captions:
            yield from _caption_units(cell)


def _caption_units(cell: _Cell) -> Iterator[Unit]:
    """Shots in the order of their rank within the class, so that 10-shot units contain the 5-shot ones."""
    training, captioner = cell.training, cell.run.captioner
    classes = itertools.groupby(training.shots, key=lambda shot: shot.class_id)
    ranks = [(rank, shot) for _, same in classes for rank, shot in enumerate(same)]
    ranked = [shot for _, shot in sorted(ranks, key=lambda pair: (pair[0], pair[1].class_id))]
    for start in range(0, len(ranked), _CAPTION_UNIT):
        some = ranked[start : start + _CAPTION_UNIT]
        pictures = [(shot.image_id, shot.sha1) for shot in some]
        identity = store.key(STEPS["caption"], captioner, training.descriptor, training.class_names, pictures)
        yield Unit(
            step="caption",
            target=f"captions/{store.slug(captioner)}-{identity}.parquet",
            label=f"{training.dataset} {start} to {start + len(some)}",
            size=len(some),
            group=captioner,
            work={
                "captioner": captioner,
                "dataset": training.dataset,
                "descriptor": training.descriptor,
                "shots": [dataclasses.asdict(shot) for shot in some],
            },
        )


def _read_captions(cells: Sequence[_Cell], artefacts: store.Store) -> None:
    for cell in cells:
        if cell.method.needs_captions:
            tables = [artefacts.read_table(unit.target) for unit in _caption_units(cell)]
            contexts = {
                row["image_id"]: Context(background=row["background"], pose=row["pose"])
                for row in pa.concat_tables(tables).to_pylist()
            }
            cell.training = dataclasses.replace(cell.training, contexts=contexts)


def _finetunes(cells: Sequence[_Cell]) -> Iterator[Unit]:
    for cell in cells:
        run, pairs = cell.run, cell.method.train_pairs(cell.training)
        if not pairs:
            continue
        recipe = {k: v for k, v in dataclasses.asdict(run.finetune).items() if k != "checkpoint_every"}
        identity = store.key(STEPS["finetune"], _weights(run), recipe, run.seed, _content(cell.training, pairs))
        # Without the method's name, for methods that tune on the same pairs share their adapter.
        name = store.slug(f"{run.dataset} {run.checkpoint}")
        cell.adapter = f"adapters/{name}-{run.shots}shot-s{run.seed}-{identity}"
        yield Unit(
            step="finetune",
            target=f"{cell.adapter}/manifest.json",
            label=_label(run, "method", "checkpoint"),
            size=run.finetune.steps(len(pairs)),
            work={
                "dataset": run.dataset,
                "checkpoint": run.checkpoint,
                "settings": dataclasses.asdict(run.finetune),
                "seed": run.seed,
                "shots": [dataclasses.asdict(shot) for shot in cell.training.shots],
                "pairs": [dataclasses.asdict(pair) for pair in pairs],
            },
        )


def _content(training: TrainingSet, pairs: Sequence[TrainPair]) -> list[tuple[str, str]]:
    sha1 = {shot.image_id: shot.sha1 for shot in training.shots}
    return [(sha1[pair.image_id], pair.prompt) for pair in pairs]


def _generations(cells: Sequence[_Cell], artefacts: store.Store) -> Iterator[Unit]:
    for cell in cells:
        run, draw = cell.run, cell.run.draw
        requests = [
            dataclasses.replace(request, adapter=cell.adapter)
            for request in cell.method.requests(cell.training, draw=draw, seed=run.seed)
        ]
        if not requests:
            continue
        rows = [dataclasses.asdict(request) for request in requests]
        identity = store.key(STEPS["generate"], _weights(run), draw.unit, rows)
        cell.images = f"images/{_name(cell)}-{identity}"
        table = f"{cell.images}/requests.parquet"
        if not artefacts.exists(table):
            artefacts.write_table(table, schema.table(rows, schema.REQUESTS), store.provenance(run))
        for number, start in enumerate(range(0, len(rows), draw.unit)):
            yield Unit(
                step="generate",
                target=f"{cell.images}/part-{number:05d}.parquet",
                label=_label(run, "method", "checkpoint"),
                size=min(draw.unit, len(rows) - start),
                group=f"{run.checkpoint} {cell.adapter}",
                work={
                    "requests": table,
                    "start": start,
                    "checkpoint": run.checkpoint,
                    "adapter": cell.adapter,
                    "batch": draw.batch,
                },
            )


def _rejected(cells: Sequence[_Cell], artefacts: store.Store) -> int:
    """Rows that could not be drawn, now or by an earlier command."""
    folders = dict.fromkeys(cell.images for cell in cells if cell.images)
    paths = [f"{folder}/{name}" for folder in folders for name in artefacts.names(folder) if ".rejected." in name]
    return sum(len(artefacts.read_table(path)) for path in paths)


def _sweep(cell: _Cell) -> Iterator[Unit]:
    work, points = _classify_work(cell), cell.run.sweep.points(has_synthetic=bool(cell.images))
    for number, point in enumerate(points):
        yield Unit(
            step="classify",
            target=f"results/{_name(cell)}-{work['run']}/sweep-{number:03d}.parquet",
            label=f"{_label(cell.run, 'method', 'backbone')} {number + 1} of {len(points)}",
            size=cell.run.sweep.sweep_epochs,
            group=work["run"],
            work={**work, "phase": "sweep", "point": dataclasses.asdict(point)},
        )


def _final(cell: _Cell) -> Unit:
    sweep, work = list(_sweep(cell)), _classify_work(cell)
    cell.final = f"results/{_name(cell)}-{work['run']}/final.parquet"
    return Unit(
        step="classify",
        target=cell.final,
        label=f"{_label(cell.run, 'method', 'backbone')} final",
        size=cell.run.sweep.final_epochs,
        group=work["run"],
        work={
            **work,
            "phase": "final",
            "receipts": [unit.target for unit in sweep],
            "points": [unit.work["point"] for unit in sweep],
        },
    )


def _classify_work(cell: _Cell) -> dict[str, Any]:
    run = cell.run
    coordinates = {
        name: getattr(run, name)
        for name in ("dataset", "descriptor", "shots", "method", "checkpoint", "backbone", "seed")
    }
    copies = run.copies(has_synthetic=bool(cell.images))
    revision = backbones.load(run.backbone).revision
    identity = store.key(
        STEPS["classify"], revision, coordinates, run.sweep, cell.split, cell.images, cell.method.mixup, copies
    )
    return {
        "run": identity,
        "coordinates": coordinates,
        "split": cell.split,
        "images": cell.images,
        "copies": copies,
        "mixup": cell.method.mixup,
        "sweep": dataclasses.asdict(run.sweep),
    }


def _weights(run: Run) -> tuple[str, str]:
    return run.checkpoint, checkpoints.settings(run.checkpoint).revision


def _name(cell: _Cell) -> str:
    run = cell.run
    return f"{store.slug(f'{run.dataset} {run.method} {run.checkpoint}')}-{run.shots}shot-s{run.seed}"


def _label(run: Run, *coordinates: str) -> str:
    return f"{run.dataset} {run.shots}-shot seed {run.seed} " + " ".join(getattr(run, name) for name in coordinates)
