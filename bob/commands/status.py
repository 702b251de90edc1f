"""How far a store is: what its plans want against what is there. Reads listings and footers, never images."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from pyarrow import fs
from rich.console import Console
from rich.table import Table

from bob import store
from bob.commands import pace
from bob.commands.console import amount
from bob.core.step_table import LAST, PLANNED
from bob.pipeline import plan_files
from bob.store import schema

__all__ = ["Reason", "Status", "StatusCommand", "Step", "read", "show"]

_SAMPLED = 64
"""Units of a step whose manifests are read for its rate, the latest: one read each, however large the store."""

_SHOWN = 100
"""Characters of a reason."""

Files = Mapping[str, fs.FileInfo]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class StatusCommand:
    """Shows what of the commands run in a folder is done, to do and rejected.

    Reads listings and Parquet footers, never images.

        bob status out
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""

    def main(self, arguments: Sequence[str]) -> int:
        """Does it and prints what came; returns the exit code."""
        artefacts = store.Store(self.out)
        show(read(artefacts), artefacts.place())
        return 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of all plans in a store."""

    name: str
    unit: str
    """What sizes count: images, epochs ..."""
    done: int
    """Units that are there."""
    todo: int
    """Units that are not."""
    size_done: int
    size: int
    """Of all units, counted in `unit`."""
    rejected: int
    """Rows of finished units that were quarantined."""
    bytes: int
    """On disk, with request tables, manifests and what is half done."""
    pace: pace.Pace
    """Of the latest units."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why rows were rejected."""

    error: str
    """Type of the exception, and its message in short."""
    rows: int
    paths: tuple[str, ...]
    """The tables that name the rows."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `bob status` shows."""

    steps: tuple[Step, ...]
    """In the pipeline's order, those that have a plan; empty if nothing has been run."""
    reasons: tuple[Reason, ...]
    """The most frequent first."""
    open: int
    """Commands that have not come to their last step: what that wants is not known yet."""
    unreadable: tuple[str, ...]
    """Finished files that were looked into and cannot be read."""


def read(artefacts: store.Store) -> Status:
    """Compares the plans of a store with one listing of it.

    Raises:
        ValueError: if the store is not there, or a plan is damaged.
    """
    files, unreadable = artefacts.listing(), []
    noted = [path for path in files if path.startswith("plans/") and path.endswith(".parquet")]
    planned = plan_files.read(artefacts, noted).to_pylist()
    quarantines = [store.quarantine(row["target"]) for row in planned if row["target"] in files]
    rejected = {path: _rows(artefacts, path, unreadable) for path in quarantines if path in files}
    sizes = _bytes(planned, files)
    steps = []
    for name in PLANNED:
        units = [row for row in planned if row["step"] == name]
        if units:
            latest = _latest(artefacts, [row for row in units if row["target"] in files], files, unreadable)
            steps.append(_step(name, units, files, rejected, size=sizes.get(name, 0), latest=pace.of(latest)))
    return Status(
        steps=tuple(steps),
        reasons=_reasons(rejected),
        open=_open(artefacts, noted),
        unreadable=tuple(unreadable),
    )


def _open(artefacts: store.Store, noted: Sequence[str]) -> int:
    """Commands without a plan for the step that they end with."""
    steps: dict[str, dict[str, str]] = {}
    for path in noted:
        command, _, step = path.removesuffix(".parquet").partition("-")
        steps.setdefault(command, {})[step] = path
    without = [paths for paths in steps.values() if LAST not in paths]
    return sum(all(artefacts.manifest(path).get("upto") != step for step, path in of.items()) for of in without)


def _step(name: str, units: Rows, files: Files, rejected: Mapping[str, Rows], *, size: int, latest: pace.Pace) -> Step:
    done = [row for row in units if row["target"] in files]
    return Step(
        name=name,
        unit=PLANNED[name].counts,
        done=len(done),
        todo=len(units) - len(done),
        size_done=sum(row["size"] for row in done),
        size=sum(row["size"] for row in units),
        rejected=sum(len(rejected.get(store.quarantine(row["target"]), ())) for row in done),
        bytes=size,
        pace=latest,
    )


def _rows(artefacts: store.Store, path: str, unreadable: list[str]) -> Rows:
    try:
        return artefacts.read_checked(path, schema.REJECTED).to_pylist()
    except (ValueError, OSError):
        unreadable.append(path)
        return []


def _latest(
    artefacts: store.Store, done: Rows, files: Files, unreadable: list[str]
) -> list[tuple[int, Mapping[str, Any]]]:
    """Size and manifest of the latest units alone, for a store may hold a hundred thousand."""
    found = []
    for row in heapq.nlargest(_SAMPLED, done, key=lambda row: files[row["target"]].mtime_ns or 0):
        try:
            manifest = artefacts.manifest(row["target"])
            pace.of([(row["size"], manifest)])  # whether it says what it should
        except (ValueError, KeyError, OSError):
            unreadable.append(row["target"])
        else:
            found.append((row["size"], manifest))
    return found


def _bytes(planned: Rows, files: Files) -> dict[str, int]:
    """Step -> the size of its units' files, and of what else lies in a folder that is theirs alone."""
    owner = {row["target"]: row["step"] for row in planned}
    for target, step in list(owner.items()):
        folder = _folder(target)
        shared = "/" not in folder  # captions/ holds those of all commands
        owner.setdefault(store.quarantine(target) if shared else folder, step)
    sizes: dict[str, int] = {}
    for path, info in files.items():
        step = owner.get(path) or owner.get(_folder(path))
        if step:
            sizes[step] = sizes.get(step, 0) + info.size
    return sizes


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _reasons(rejected: Mapping[str, Rows]) -> tuple[Reason, ...]:
    found: dict[str, list[str]] = {}
    for path, rows in rejected.items():
        for row in rows:
            error = f"{row['error']}: {' '.join(row['message'].split())}"
            short = error if len(error) <= _SHOWN else f"{error[: _SHOWN - 3]}..."
            found.setdefault(short, []).append(path)
    reasons = [Reason(error=e, rows=len(paths), paths=tuple(dict.fromkeys(paths))) for e, paths in found.items()]
    return tuple(sorted(reasons, key=lambda reason: -reason.rows))


def show(status: Status, root: str, *, console: Console | None = None) -> None:
    """Prints a table on a terminal, aligned lines elsewhere, and what else there is to say."""
    console = console or Console(highlight=False)
    if not status.steps:
        print(f"nothing has been run in {root}")
        return
    head = ("step", "done", "to do", "work done", "rejected", "on disk", "per worker")
    rows = [_cells(step) for step in status.steps]
    if console.is_terminal:
        table = Table(*head, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for step in status.steps:
        if words := step.pace.words(step.unit):
            print(f"{PLANNED[step.name].title}: {words}")
    if status.open:
        print(f"sets of runs that have not come to their last steps, which are not counted yet: {status.open}")
    for reason in status.reasons:
        first, *others = reason.paths
        more = f" and {len(others)} more" if others else ""
        print(f"rejected {reason.rows} rows: {reason.error} ({first}{more})")
    if status.unreadable:
        print(f"finished files that cannot be read: {len(status.unreadable)}; `bob verify {root}` says what to do")


def _cells(step: Step) -> tuple[str, ...]:
    rate = step.pace.rate
    digits = ".3g" if (rate or 0) < 100 else ",.0f"
    return (
        PLANNED[step.name].title,
        f"{step.done:,}",
        f"{step.todo:,}",
        f"{step.size_done:,} of {step.size:,} {step.unit}",
        f"{step.rejected:,}",
        amount(step.bytes),
        "-" if rate is None else f"{rate:{digits}} {step.unit}/s",
    )
