"""Runs -> the graph of work units -> results: deduplicated, skipping what exists.

Captions, adapters and images are shared by every run that needs them: one adapter serves three
backbones. A unit's path holds a hash of all that it depends on, so the same command resumes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from bob import datasets, methods, registry, schema, store, units
from bob.diffusion import checkpoints
from bob.settings import Run
from bob.types import Context, Outcome, Receipt, TrainingSet, Unit
from bob.units import Cell

__all__ = ["Executor", "Report", "execute", "split"]

Executor = Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]
"""(step, units, store) -> a receipt for each unit as it is done, in any order."""

Report = Callable[[str, int, int, Iterator[Receipt]], Iterable[Receipt]]
"""(step, units to do, units done before, receipts) -> the receipts, shown to the user in passing."""


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
    artefacts.clear_stale()
    cells = [split(run, artefacts) for run in runs]

    def do(step: str, made: Iterable[Unit]) -> None:
        wanted = {unit.target: unit for unit in made}
        todo = [unit for unit in wanted.values() if not artefacts.exists(unit.target)]
        todo.sort(key=lambda unit: unit.group)  # stable: neighbours share a model
        if wanted:
            receipts = executor(step, todo, artefacts) if todo else iter(())
            for _ in report(step, len(todo), len(wanted) - len(todo), receipts):
                pass

    do("caption", (unit for cell in cells for unit in units.captions(cell)))
    _read_captions(cells, artefacts)
    do("finetune", (unit for cell in cells for unit in units.finetune(cell)))
    do("generate", (unit for cell in cells for unit in units.generations(cell, artefacts)))
    rejected = _rejected(cells, artefacts)
    if rejected > max_rejected:
        raise ValueError(
            f"{rejected} rows were rejected, at most {max_rejected} may be: read the *.rejected.parquet files in "
            f"{artefacts.root}, or raise --max-rejected. All that was not rejected is kept"
        )
    swept = [list(units.sweep(cell)) for cell in cells]
    do("classify", (unit for sweep in swept for unit in sweep))
    do("classify", (units.final(cell, sweep) for cell, sweep in zip(cells, swept, strict=True)))
    return [_outcome(cell) for cell in cells]


def _outcome(cell: Cell) -> Outcome:
    shots = cell.training.shots
    return Outcome(
        run=cell.run, shots=shots, split=cell.split, adapter=cell.adapter, images=cell.images, final=cell.final
    )


def split(run: Run, artefacts: store.Store) -> Cell:
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
    return Cell(run, method, path, training)


def _read_captions(cells: Sequence[Cell], artefacts: store.Store) -> None:
    for cell in cells:
        if cell.method.needs_captions:
            tables = [artefacts.read_table(unit.target) for unit in units.captions(cell)]
            contexts = {
                row["image_id"]: Context(background=row["background"], pose=row["pose"])
                for row in pa.concat_tables(tables).to_pylist()
            }
            cell.training = dataclasses.replace(cell.training, contexts=contexts)


def _rejected(cells: Sequence[Cell], artefacts: store.Store) -> int:
    """Rows that could not be drawn, now or by an earlier command."""
    folders = dict.fromkeys(cell.images for cell in cells if cell.images)
    paths = [f"{folder}/{name}" for folder in folders for name in artefacts.names(folder) if ".rejected." in name]
    return sum(len(artefacts.read_table(path)) for path in paths)
