"""Runs -> the graph of work units -> results: deduplicated, skipping what exists.

Captions, adapters and images are shared by every run that needs them: one adapter serves three
backbones. A unit's path holds a hash of all that it depends on, so the same command resumes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from bob import backbones, captioners, datasets, methods, store
from bob.core import registry, threads
from bob.core.settings import Run
from bob.core.step_table import PLANNED
from bob.core.types import Outcome, Receipt, Unit
from bob.diffusion import checkpoints
from bob.pipeline import plan_files
from bob.pipeline.splits import Splits, split
from bob.pipeline.walk import UPTO, walk
from bob.steps.cell import Cell
from bob.store import schema

__all__ = [
    "UPTO",
    "Executor",
    "Report",
    "check",
    "execute",
    "measure",
    "outcome",
    "split",
]

Executor = Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]
"""(step, units, store) -> a receipt for each unit as it is done, in any order."""

Report = Callable[[str, int, int, Iterator[Receipt]], Iterable[Receipt]]
"""(step, units to do, units done before, receipts) -> the receipts, shown to the user in passing."""


def execute(
    runs: Sequence[Run],
    *,
    artefacts: store.Store,
    executor: Executor,
    report: Report,
    max_rejected: int = 0,
    upto: str = "classify",
    at_once: int = 1,
) -> list[Outcome]:
    """Does all that the runs need and is not there yet.

    Runs of another data set or seed need nothing of each other. With `at_once` over 1 those of each go through the
    steps by themselves, so that the devices which one step leaves idle towards its end do another's; with 1 all do a
    step together, which loads each model once.

    Args:
        runs: the cells to fill.
        artefacts: where everything is kept.
        executor: inline or on a cluster.
        report: shows progress.
        max_rejected: rows that may be quarantined before the whole fails at the end.
        upto: one of `UPTO`: the last step that is done.
        at_once: data sets and seeds that are at work side by side.

    Returns:
        What each run has come to, in their order.

    Raises:
        ValueError: for anything a user can mend, and if more than `max_rejected` rows were rejected. What needs
            nothing of that is done before.
    """
    if upto not in UPTO:
        raise ValueError(registry.unknown("step to end with", upto, UPTO))
    check(runs, artefacts=artefacts, max_rejected=max_rejected)
    artefacts.require_writable()
    artefacts.clear_stale()
    splits = Splits()
    cells = {run: split(run, artefacts, splits) for run in dict.fromkeys(runs)}
    do = functools.partial(_do, artefacts=artefacts, executor=executor, report=report, upto=upto)

    def part(some: Sequence[Run]) -> list[str] | Exception:
        mine = [cells[run] for run in dict.fromkeys(some)]
        try:
            return _steps(mine, artefacts, functools.partial(do, runs=some), max_rejected=max_rejected, upto=upto)
        except Exception as error:  # the other parts need nothing of this one
            if len(some) < len(runs):
                print(f"{some[0].dataset} seed {some[0].seed}: stopped: {error}", flush=True)
            return error

    lacking = list[str]()
    for found in list(threads.as_completed(part, _apart(runs) if at_once > 1 else [runs], at_once=at_once)):
        if isinstance(found, Exception):
            raise found
        lacking += found
    _require_few(lacking, max_rejected, artefacts)
    return [outcome(cells[run]) for run in runs]


def _apart(runs: Sequence[Run]) -> list[list[Run]]:
    """Those of each data set and seed, which share nothing with the others; the most runs first."""
    parts: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        parts.setdefault((run.dataset, run.descriptor, run.seed), []).append(run)
    return sorted(parts.values(), key=len, reverse=True)


def _steps(cells: Sequence[Cell], artefacts: store.Store, do: Callable, *, max_rejected: int, upto: str) -> list[str]:
    """Returns the units that had to reject some rows, now or earlier."""
    lacking = list[str]()
    for step, wanted in walk(cells, artefacts, upto=upto):
        do(step, wanted)
        if step in ("caption", "generate"):
            lacking += _rejecting(wanted, artefacts)
            _require_few(lacking, max_rejected, artefacts)
    return lacking


def _rejecting(wanted: Iterable[Unit], artefacts: store.Store) -> list[str]:
    """The units that had to reject some rows, now or earlier."""
    beside = {store.quarantine(unit.target): unit.target for unit in wanted}
    there = artefacts.present(beside)
    return [target for quarantine, target in beside.items() if quarantine in there]


def measure(
    wanted: Sequence[Unit],
    *,
    runs: Sequence[Run],
    artefacts: store.Store,
    executor: Executor,
    report: Report,
    max_rejected: int = 0,
) -> None:
    """Does what figures and measures want beside the steps of `execute`: units of `embed` and `recognise`.

    Args:
        wanted: units of any of these steps.
        runs: what the command was asked for; names the plans.
        artefacts: where everything is kept.
        executor: inline or on a cluster.
        report: shows progress.
        max_rejected: images that may be quarantined before the whole fails.

    Raises:
        ValueError: for anything a user can mend, and if more than `max_rejected` images were rejected.
    """
    for step in dict.fromkeys(unit.step for unit in wanted):
        some = [unit for unit in wanted if unit.step == step]
        _do(step, some, runs=runs, artefacts=artefacts, executor=executor, report=report)
    _require_few(_rejecting(wanted, artefacts), max_rejected, artefacts)


def check(runs: Sequence[Run], *, artefacts: store.Store, max_rejected: int = 0) -> None:
    """Refuses, before anything is written, what can be known to fail or to spoil something later.

    Raises:
        ValueError: says what; `execute` begins with it.
    """
    if max_rejected < 0:
        raise ValueError(f"max_rejected must not be negative, got {max_rejected}")
    for run in runs:
        registry.require("captioner", run.captioner.partition(":")[0])
        backbones.load(run.backbone)
        checkpoints.revision(run.checkpoint)
        if methods.load(run.method).needs_captions:
            captioners.revision(run.captioner)
    for name, descriptor in dict.fromkeys((run.dataset, run.descriptor) for run in runs):
        dataset = datasets.load(name, descriptor)
        for run in runs:
            if run.dataset == name and run.shots and dataset.medium:
                raise ValueError(
                    f"{dataset.name} says how many images each class has, so --shots changes nothing: leave it out"
                )
        if "://" not in artefacts.root and dataset.holds(Path(artefacts.root)):
            raise ValueError(
                f"the output folder {artefacts.place()} lies in the data set {name}, which would take what is written"
                " for pictures: choose another --out"
            )


def _do(
    planned: str,
    made: Iterable[Unit],
    *,
    runs: Sequence[Run],
    artefacts: store.Store,
    executor: Executor,
    report: Report,
    upto: str = "",
) -> None:
    """Notes what one step of `PLANNED` wants, each unit once, and does what of it is not there yet."""
    wanted = {unit.target: unit for unit in made}
    ends = "" if upto == UPTO[-1] else upto
    plan_files.write(planned, wanted.values(), runs=runs, artefacts=artefacts, upto=ends)
    done = artefacts.present(wanted)
    todo = [unit for target, unit in wanted.items() if target not in done]
    todo.sort(key=lambda unit: unit.group)  # stable: neighbours share a model
    if wanted:
        step = PLANNED[planned].step
        receipts = executor(step, todo, artefacts) if todo else iter(())
        for _ in report(step, len(todo), len(wanted) - len(todo), receipts):
            pass


def outcome(cell: Cell) -> Outcome:
    """What a run has come to, as far as its cell knows."""
    shots = cell.training.shots
    return Outcome(
        run=cell.run,
        dataset=cell.training.dataset,
        shots=shots,
        split=cell.split,
        captions=cell.captions,
        adapter=cell.adapter,
        images=cell.images,
        final=cell.final,
    )


def _require_few(lacking: Sequence[str], max_rejected: int, artefacts: store.Store) -> None:
    """Fails if these units have rejected more than `max_rejected` rows; says which file to delete to retry them."""
    tables = [artefacts.read_checked(store.quarantine(target), schema.REJECTED) for target in lacking]
    rows = [row for table in tables for row in table.to_pylist()]
    if len(rows) <= max_rejected:
        return
    first, others = rows[0], f", and so for {len(lacking) - 1} more *.rejected.parquet" if len(lacking) > 1 else ""
    raise ValueError(
        f"{len(rows)} rows were rejected, at most {max_rejected} may be: the first is {first['row_id']} of step"
        f" {first['step']} ({first['error']}: {first['message']}). To try it again, mend that and delete both"
        f" {artefacts.place(lacking[0])} and {artefacts.place(store.quarantine(lacking[0]))}{others}; to do without,"
        " raise --max-rejected. All that was not rejected is kept"
    )
