"""`bob status`: progress of a store, its plans compared with one listing. Reads listings and footers, never images."""

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
"""Most recent units of a step whose manifests are read for its rate, which bounds the reads in a large store."""

_SHOWN = 100
"""Longest printed reason, in characters."""

Files = Mapping[str, fs.FileInfo]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class StatusCommand:
    """Shows how much of the work of all commands run in a folder is done, to do and rejected.

    Reads listings and Parquet footers, never images.

        bob status out
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""

    def main(self, arguments: Sequence[str]) -> int:
        """Prints the status; returns the exit code."""
        artefacts = store.Store(self.out)
        show(read(artefacts), artefacts.place())
        return 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """Progress of one step, over all plans in a store."""

    name: str
    unit: str
    """Unit of the sizes: images, epochs ..."""
    done: int
    """Finished units."""
    todo: int
    """Unfinished units."""
    size_done: int
    size: int
    """Size of all units, counted in `unit`."""
    rejected: int
    """Quarantined rows of finished units."""
    bytes: int
    """Size on disk, with request tables, manifests and unfinished files."""
    pace: pace.Pace
    """Rate and timing of the latest units."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Reason for which rows were rejected."""

    error: str
    """Type and shortened message of the exception."""
    rows: int
    paths: tuple[str, ...]
    """Paths of the tables that list the rows."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Content of `bob status`."""

    steps: tuple[Step, ...]
    """Planned steps in the pipeline's order; empty if nothing has been run."""
    reasons: tuple[Reason, ...]
    """Reasons of rejections, the most frequent first."""
    open: int
    """Number of commands without a plan for their last step, whose units are not known yet."""
    unreadable: tuple[str, ...]
    """Paths of finished files that could not be read."""


def read(artefacts: store.Store) -> Status:
    """Compares the plans of a store with one listing of it.

    Raises:
        ValueError: if the store does not exist, or a plan is damaged.
    """
    files, unreadable = artefacts.listing(), []
    plans = [path for path in files if path.startswith("plans/") and path.endswith(".parquet")]
    planned = plan_files.read(artefacts, plans).to_pylist()
    quarantines = [store.quarantine(row["target"]) for row in planned if row["target"] in files]
    rejected = {path: _rows(artefacts, path, unreadable) for path in quarantines if path in files}
    sizes = _bytes(planned, files)
    steps = []
    for name in PLANNED:
        units = [row for row in planned if row["step"] == name]
        if units:
            latest = _latest(artefacts, [row for row in units if row["target"] in files], files, unreadable)
            steps.append(_step(name, units, files, rejected, size=sizes.get(name, 0), latest=pace.summarise(latest)))
    return Status(
        steps=tuple(steps),
        reasons=_reasons(rejected),
        open=_open(artefacts, plans),
        unreadable=tuple(unreadable),
    )


def _open(artefacts: store.Store, plans: Sequence[str]) -> int:
    """Returns the number of commands without a plan for the step that they end with."""
    steps: dict[str, dict[str, str]] = {}
    for path in plans:
        command, _, step = path.removesuffix(".parquet").partition("-")
        steps.setdefault(command, {})[step] = path
    unfinished = [paths for paths in steps.values() if LAST not in paths]
    return sum(
        all(artefacts.manifest(path).get("upto") != step for step, path in paths.items()) for paths in unfinished
    )


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
    """Returns size and manifest of the `_SAMPLED` latest units."""
    latest = []
    for row in heapq.nlargest(_SAMPLED, done, key=lambda row: files[row["target"]].mtime_ns or 0):
        try:
            manifest = artefacts.manifest(row["target"])
            pace.summarise([(row["size"], manifest)])  # raises if the manifest lacks a field
        except (ValueError, KeyError, OSError):
            unreadable.append(row["target"])
        else:
            latest.append((row["size"], manifest))
    return latest


def _bytes(planned: Rows, files: Files) -> dict[str, int]:
    """Returns step -> bytes of its units' files, with all other files in a folder that belongs to one unit."""
    owner = {row["target"]: row["step"] for row in planned}
    for target, step in list(owner.items()):
        folder = _folder(target)
        shared = "/" not in folder  # captions/ holds the units of all commands
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
    paths_of: dict[str, list[str]] = {}
    for path, rows in rejected.items():
        for row in rows:
            error = f"{row['error']}: {' '.join(row['message'].split())}"
            short = error if len(error) <= _SHOWN else f"{error[: _SHOWN - 3]}..."
            paths_of.setdefault(short, []).append(path)
    reasons = [Reason(error=e, rows=len(paths), paths=tuple(dict.fromkeys(paths))) for e, paths in paths_of.items()]
    return tuple(sorted(reasons, key=lambda reason: -reason.rows))


def show(status: Status, root: str, *, console: Console | None = None) -> None:
    """Prints a table on a terminal, aligned lines elsewhere, then timings, rejections and unreadable files."""
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
        print(f"commands whose last step is not planned yet, so that its units are not counted: {status.open}")
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
