"""The walk through the steps: which units each one wants, in order. `execute`, `bob plan` and `outcomes` share it.

A step's units can be named only when the step before has been done, since captions decide what is fine-tuned on and
drawn. So the walk is a generator: whoever takes a step's units from it deals with them before asking for the next.
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
    cells: Sequence[Cell], artefacts: store.Store, *, upto: str = UPTO[-1], writes: bool = True
) -> Iterator[tuple[str, list[Unit]]]:
    """The steps of some runs, in order, each with all units that it wants, done or not.

    Args:
        cells: the runs; each is filled in with what its steps decide: contexts, adapter, images, final.
        artefacts: where captions are read from, and where request tables are kept.
        upto: one of `UPTO`: the last step.
        writes: False for a look that leaves the store as it is. A run whose captions are not all made then goes on
            with made-up ones, and is noted as provisional.

    Yields:
        (a step of `step_table.PLANNED`, its units); a unit that several runs share stands there more than once.

    Raises:
        ValueError: if an artefact that a step reads is damaged, or a class is left without a caption.
    """
    captions = [list(caption.units(cell)) for cell in cells]
    yield "caption", _joined(captions)
    for cell, wanted in zip(cells, captions, strict=True):
        _take_captions(cell, wanted, artefacts, writes=writes)
    if upto == "caption":
        return
    tuned = [finetune.unit(cell) for cell in cells]
    for cell, unit in zip(cells, tuned, strict=True):
        cell.adapter = finetune.adapter(unit, after=cell.run.after)
    yield "finetune", [unit for unit in tuned if unit]
    if upto == "finetune":
        return
    yield "generate", _joined(generations(cell, artefacts, writes=writes) for cell in cells)
    if upto == "generate":
        return
    swept = [classify.sweep(cell) for cell in cells]
    yield "sweep", _joined(swept)
    finals = [classify.final(cell, units) for cell, units in zip(cells, swept, strict=True)]
    for cell, unit in zip(cells, finals, strict=True):
        cell.final = unit.target
    yield "final", finals


def generations(cell: Cell, artefacts: store.Store, *, writes: bool = True) -> Iterator[Unit]:
    """The shards of a run, whose requests are written and noted in its cell; see `generate.write_requests`."""
    requested = generate.write_requests(cell, artefacts, writes=writes)
    cell.images, cell.drawn = requested.folder, requested.count
    return generate.units(cell)


def _joined(parts: Iterable[Iterable[Unit]]) -> list[Unit]:
    return [unit for part in parts for unit in part]


def _take_captions(cell: Cell, wanted: Sequence[Unit], artefacts: store.Store, *, writes: bool) -> None:
    """Gives the run its contexts and suffixes, and takes out the shots that have none."""
    there = writes or len(artefacts.present(unit.target for unit in wanted)) == len(wanted)
    cell.provisional = cell.provisional or not there
    if cell.provisional:
        _make_up(cell)
    elif cell.method.needs_captions:
        cell.captions = tuple(unit.target for unit in wanted)
        rows = pa.concat_tables([_captions(unit, artefacts) for unit in wanted]).to_pylist()
        contexts = {row["image_id"]: Context(background=row["background"], pose=row["pose"]) for row in rows}
        cell.training = dataclasses.replace(cell.training, contexts=contexts)
        drop_uncaptioned(cell, artefacts, writes=writes)
        _fill_suffixes(cell, artefacts, writes=writes)


def _make_up(cell: Cell) -> None:
    """A context for each shot, none like another."""
    if cell.method.needs_captions:
        contexts = {
            shot.image_id: Context(background=f"background {k}", pose=f"pose {k}")
            for k, shot in enumerate(cell.training.shots)
        }
        cell.training = dataclasses.replace(cell.training, contexts=contexts)
    if cell.method.needs_suffixes:
        cell.training = dataclasses.replace(cell.training, suffixes=("somewhere",))


def _captions(unit: Unit, artefacts: store.Store) -> pa.Table:
    """A caption for each shot that was not rejected: a table that is short of others is a damaged one."""
    beside = store.quarantine(unit.target)
    rejected = len(artefacts.read_checked(beside, schema.REJECTED)) if artefacts.exists(beside) else 0
    return artefacts.read_checked(unit.target, schema.CAPTIONS, least=unit.size - rejected)


def _fill_suffixes(cell: Cell, artefacts: store.Store, *, writes: bool) -> None:
    """Gives a run that wants them its suffixes: the file that is there, which a user may have edited, or a new one."""
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
