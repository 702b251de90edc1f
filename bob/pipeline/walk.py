"""The walk through the steps: the units of each step, in order. `execute`, `bob plan` and `outcomes` share it.

The units of a step depend on the results of the step before: captions decide the prompts of fine-tuning and drawing. So
the walk is a generator, and its caller does a step's units before it takes the next step.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from bob import store
from bob.core.types import Context, Unit
from bob.methods import _suffixes
from bob.pipeline.splits import drop_uncaptioned
from bob.steps import caption, classify, finetune, generate
from bob.steps.cell import Cell
from bob.store import schema

__all__ = ["UPTO", "generations", "walk"]

UPTO = ("caption", "finetune", "generate", "classify")
"""The steps that a walk may end with."""


def walk(
    cells: Sequence[Cell],
    artefacts: store.Store,
    *,
    upto: str = UPTO[-1],
    writes: bool = True,
    checks: bool = True,
) -> Iterator[tuple[str, list[Unit]]]:
    """Yields the steps of runs, in order, each with all its units, done or not.

    Args:
        cells: the runs; the walk fills in contexts, adapter, images and final.
        artefacts: the store of captions and request tables.
        upto: the last step, one of `UPTO`.
        writes: False leaves the store as it is. A run without all its captions then goes on with placeholder captions
            and is marked as provisional.
        checks: False takes request tables that exist for whole, and drops shots without a word: for a plan.

    Yields:
        (a step of `step_table.PLANNED`, its units); a unit that several runs share appears more than once.

    Raises:
        ValueError: if an artefact that a step reads is damaged, or a class is left without a caption.
    """
    captions = [list(caption.units(cell)) for cell in cells]
    yield "caption", _joined(captions)
    for cell, units in zip(cells, captions, strict=True):
        _read_captions(cell, units, artefacts, writes=writes, tell=checks)
    if upto == "caption":
        return
    tuned = [finetune.unit(cell) for cell in cells]
    for cell, unit in zip(cells, tuned, strict=True):
        cell.adapter = finetune.adapter(unit, after=cell.run.after)
    yield "finetune", [unit for unit in tuned if unit]
    if upto == "finetune":
        return
    yield "generate", _joined(generations(cell, artefacts, writes=writes, checks=checks) for cell in cells)
    if upto == "generate":
        return
    swept = [classify.sweep(cell) for cell in cells]
    yield "sweep", _joined(swept)
    finals = [classify.final(cell, units) for cell, units in zip(cells, swept, strict=True)]
    for cell, unit in zip(cells, finals, strict=True):
        cell.final = unit.target
    yield "final", finals


def generations(cell: Cell, artefacts: store.Store, *, writes: bool = True, checks: bool = True) -> Iterator[Unit]:
    """Writes a run's requests, fills in the cell's images and returns the shards; see `generate.write_requests`."""
    requested = generate.write_requests(cell, artefacts, writes=writes, checks=checks)
    cell.images, cell.drawn = requested.folder, requested.count
    return generate.units(cell)


def _joined(parts: Iterable[Iterable[Unit]]) -> list[Unit]:
    return [unit for part in parts for unit in part]


def _read_captions(cell: Cell, units: Sequence[Unit], artefacts: store.Store, *, writes: bool, tell: bool) -> None:
    """Fills in the run's contexts and suffixes, and drops the shots without a caption."""
    complete = writes or len(artefacts.present(unit.target for unit in units)) == len(units)
    cell.provisional = cell.provisional or not complete
    if cell.provisional:
        _fill_placeholders(cell)
        return
    if cell.method.needs_captions:
        cell.captions = tuple(unit.target for unit in units)
        rows = pa.concat_tables([_captions(unit, artefacts) for unit in units]).to_pylist()
        contexts = {row["image_id"]: Context(background=row["background"], pose=row["pose"]) for row in rows}
        cell.training = dataclasses.replace(cell.training, contexts=contexts)
        drop_uncaptioned(cell, artefacts, writes=writes, tell=tell)
    _fill_suffixes(cell, artefacts, writes=writes)


def _fill_placeholders(cell: Cell) -> None:
    """Fills in a distinct placeholder context for each shot, and a placeholder suffix."""
    if cell.method.needs_captions:
        contexts = {
            shot.image_id: Context(background=f"background {k}", pose=f"pose {k}")
            for k, shot in enumerate(cell.training.shots)
        }
        cell.training = dataclasses.replace(cell.training, contexts=contexts)
    if cell.method.needs_suffixes:
        cell.training = dataclasses.replace(cell.training, suffixes=("somewhere",))


def _captions(unit: Unit, artefacts: store.Store) -> pa.Table:
    """Reads a unit's captions; a table without a row for each shot that was not rejected is damaged."""
    quarantine = store.quarantine(unit.target)
    rejected = len(artefacts.read_checked(quarantine, schema.REJECTED)) if artefacts.exists(quarantine) else 0
    return artefacts.read_checked(unit.target, schema.CAPTIONS, least=unit.size - rejected)


def _fill_suffixes(cell: Cell, artefacts: store.Store, *, writes: bool) -> None:
    """Fills in the suffixes of a run that needs them, from the file, which a user may have edited, or a new one."""
    training = cell.training
    if not cell.method.needs_suffixes:
        return
    contexts = [dataclasses.astuple(context) for context in training.contexts.values()]
    name = f"{store.slug(training.dataset)}-{cell.run.setting}-{store.key(sorted(contexts))}"
    path = f"suffixes/{name}.txt"
    if not artefacts.exists(path):
        text = "\n".join(_suffixes.condense(training.contexts.values())) + "\n"
        if writes:
            artefacts.write(path, text.encode())
    else:
        text = artefacts.read(path).decode()
    cell.training = dataclasses.replace(training, suffixes=_suffixes.parse(text, artefacts.place(path)))
