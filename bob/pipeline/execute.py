"""Execution of runs: does the missing work units of each step, in order.

Runs share captions, adapters and images: one adapter serves three backbones. A unit's path holds a hash of all that
the unit depends on, and a file exists only when it is complete (`bob/store/store.py`). So a killed run resumes by the
same command: `_do` lists which units' files exist and does the others. A long training goes on within its unit, too,
from the state that its worker keeps beside the file (`state.pt`; `bob/steps/finetune.py` and `classify.py`).
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bob import backbones, captioners, datasets, methods, store
from bob.core import registry, threads
from bob.core.settings import Run
from bob.core.types import Outcome, Receipt, Unit
from bob.diffusion import checkpoints
from bob.pipeline import plan_files
from bob.pipeline.splits import Splits, split
from bob.pipeline.walk import UPTO, walk
from bob.steps.cell import Cell
from bob.store import schema

__all__ = [
    "Executor",
    "Report",
    "check",
    "execute",
    "measure",
    "outcome",
]

Executor = Callable[[str, Sequence[Unit], store.Store], Iterator[Receipt]]
"""(step, units, store) -> a receipt per unit as soon as it is done, in any order; but a final training, which follows
its run's sweep in the list, starts only when that is done."""

Report = Callable[[str, int, int, Iterator[Receipt]], Iterable[Receipt]]
"""(step, number of units to do, number done before, receipts) -> the same receipts, after showing progress."""


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
    """Does all missing work of the runs.

    Runs of different data sets or seeds are independent. With `at_once` over 1 each data set and seed goes through the
    steps on its own, so that devices left idle at the end of one step do another's units; with 1 all runs do a step
    together, which loads each model once.

    Args:
        runs: the cells to fill.
        artefacts: the store of all artefacts.
        executor: inline or on a cluster.
        report: shows progress.
        max_rejected: number of rows that may be quarantined before the command fails.
        upto: the last step to do, one of `UPTO`.
        at_once: number of data sets and seeds that are worked on concurrently.

    Returns:
        The outcome of each run, in their order.

    Raises:
        ValueError: for anything a user can mend, and if more than `max_rejected` rows were rejected. Independent work
            is done first.
    """
    if upto not in UPTO:
        raise ValueError(registry.unknown("step to end with", upto, UPTO))
    check(runs, artefacts=artefacts, max_rejected=max_rejected)
    artefacts.require_writable()
    artefacts.clear_stale()
    splits = Splits()
    cells = {run: split(run, artefacts, splits) for run in dict.fromkeys(runs)}
    do = functools.partial(_do, artefacts=artefacts, executor=executor, report=report, upto=upto)

    def do_part(part: Sequence[Run]) -> list[str] | Exception:
        part_cells = [cells[run] for run in dict.fromkeys(part)]
        try:
            return _do_steps(
                part_cells, artefacts, functools.partial(do, runs=part), max_rejected=max_rejected, upto=upto
            )
        except Exception as error:  # the other parts are independent and go on
            if len(part) < len(runs):
                print(f"{part[0].dataset} seed {part[0].seed}: stopped: {error}", flush=True)
            return error

    incomplete = list[str]()
    parts = _independent_parts(runs) if at_once > 1 else [runs]
    for result in list(threads.as_completed(do_part, parts, at_once=at_once)):
        if isinstance(result, Exception):
            raise result
        incomplete += result
    _require_few_rejected(incomplete, max_rejected, artefacts)
    return [outcome(cells[run]) for run in runs]


def _independent_parts(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs by data set and seed, between which nothing is shared; the largest group first."""
    parts: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        parts.setdefault((run.dataset, run.descriptor, run.seed), []).append(run)
    return sorted(parts.values(), key=len, reverse=True)


def _do_steps(
    cells: Sequence[Cell], artefacts: store.Store, do: Callable, *, max_rejected: int, upto: str
) -> list[str]:
    """Does the steps in order; returns the targets of the units with rejected rows."""
    incomplete, together = list[str](), dict[str, Sequence[Unit]]()
    for step, units in walk(cells, artefacts, upto=upto):
        together[step] = units
        if step == "sweep":  # the final trainings, which come next, need not wait for other runs' sweeps
            continue
        do(together)
        together = {}
        if step in ("caption", "generate"):
            incomplete += _incomplete(units, artefacts)
            _require_few_rejected(incomplete, max_rejected, artefacts)
    return incomplete


def _incomplete(units: Iterable[Unit], artefacts: store.Store) -> list[str]:
    """Returns the targets of the units with rejected rows, of this command or an earlier one."""
    targets = {store.quarantine(unit.target): unit.target for unit in units}
    present = artefacts.present(targets)
    return [target for quarantine, target in targets.items() if quarantine in present]


def measure(
    units: Sequence[Unit],
    *,
    runs: Sequence[Run],
    artefacts: store.Store,
    executor: Executor,
    report: Report,
    max_rejected: int = 0,
) -> None:
    """Does the units that figures and metrics need besides the steps of `execute`: those of `embed` and `recognise`.

    Args:
        units: units of either step or both.
        runs: the runs of the command, which name the plans.
        artefacts: the store of all artefacts.
        executor: inline or on a cluster.
        report: shows progress.
        max_rejected: number of images that may be quarantined before the command fails.

    Raises:
        ValueError: for anything a user can mend, and if more than `max_rejected` images were rejected.
    """
    for step in dict.fromkeys(unit.step for unit in units):
        of_step = [unit for unit in units if unit.step == step]
        _do({step: of_step}, runs=runs, artefacts=artefacts, executor=executor, report=report)
    _require_few_rejected(_incomplete(units, artefacts), max_rejected, artefacts)


def check(runs: Sequence[Run], *, artefacts: store.Store, max_rejected: int = 0) -> None:
    """Refuses, before anything is written, runs that would fail or spoil something later. `execute` begins with it.

    Raises:
        ValueError: if a name is unknown, a setting does not apply or the store lies in the data set; says which.
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
    planned: Mapping[str, Sequence[Unit]],
    *,
    runs: Sequence[Run],
    artefacts: store.Store,
    executor: Executor,
    report: Report,
    upto: str = "",
) -> None:
    """Writes the plans of units of one step, by their name in `PLANNED`, each unit once, and does the missing units."""
    last, by_target = "" if upto == UPTO[-1] else upto, dict[str, Unit]()
    for name, units in planned.items():
        named = {unit.target: unit for unit in units}
        plan_files.write(name, named.values(), runs=runs, artefacts=artefacts, upto=last)
        by_target |= named
    done = artefacts.present(by_target)
    todo = [unit for target, unit in by_target.items() if target not in done]
    todo.sort(key=lambda unit: unit.group)  # stable: neighbours share a model, and a sweep stays before its final
    if by_target:
        step = next(iter(by_target.values())).step
        receipts = executor(step, todo, artefacts) if todo else iter(())
        for _ in report(step, len(todo), len(done), receipts):
            pass


def outcome(cell: Cell) -> Outcome:
    """Returns the outcome of a run from its cell."""
    return Outcome(
        run=cell.run,
        dataset=cell.training.dataset,
        shots=cell.training.shots,
        split=cell.split,
        captions=cell.captions,
        adapter=cell.adapter,
        images=cell.images,
        final=cell.final,
    )


def _require_few_rejected(incomplete: Sequence[str], max_rejected: int, artefacts: store.Store) -> None:
    """Fails if these targets have more than `max_rejected` rejected rows; says which file to delete to retry them."""
    tables = [artefacts.read_checked(store.quarantine(target), schema.REJECTED) for target in incomplete]
    rows = [row for table in tables for row in table.to_pylist()]
    if len(rows) <= max_rejected:
        return
    more = len(incomplete) - 1
    first, others = rows[0], f", and so for {more} more *.rejected.parquet" if more else ""
    raise ValueError(
        f"{len(rows)} rows were rejected, at most {max_rejected} may be: the first is {first['row_id']} of step"
        f" {first['step']} ({first['error']}: {first['message']}). To try it again, mend that and delete both"
        f" {artefacts.place(incomplete[0])} and {artefacts.place(store.quarantine(incomplete[0]))}{others}; to do"
        " without, raise --max-rejected. All that was not rejected is kept"
    )
