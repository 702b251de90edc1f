"""Progress of steps and file walks: a bar on a terminal, lines with rate and time left in a log."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bob.core.step_table import STEPS
from bob.core.types import Receipt

__all__ = ["amount", "lines", "report", "walk"]


_BAR = threading.Lock()
"""Held by the step that shows its bar: a terminal has room for one, and steps may run concurrently."""


def report(step: str, todo: int, done: int, receipts: Iterator[Receipt]) -> Iterable[Receipt]:
    """Passes receipts on and prints a line for each, with a bar below them on a terminal."""
    console = Console()
    name = STEPS[step].heading
    print(f"{name}: {todo} units to do, {done} done before", flush=True)
    if not todo:
        return
    if not console.is_terminal or not _BAR.acquire(blocking=False):
        yield from lines(step, todo, receipts)
        return
    try:
        with _bar(name, console) as bar:
            task = bar.add_task(step, total=todo)
            for receipt in lines(step, todo, receipts):
                bar.advance(task)
                yield receipt
    finally:
        _BAR.release()


def lines(step: str, todo: int, receipts: Iterable[Receipt]) -> Iterator[Receipt]:
    """Prints a line for each receipt and passes it on."""
    name, unit = STEPS[step].heading, STEPS[step].counts
    start, size = time.monotonic(), 0
    for count, receipt in enumerate(receipts, 1):
        size += receipt.size
        elapsed = max(1e-9, time.monotonic() - start)
        parts = [
            f"{receipt.size} {unit} in {receipt.seconds:.1f} s",
            f"{size / elapsed:.1f} {unit}/s in all",
            f"{elapsed / count * (todo - count):.0f} s left",
            *([receipt.note] if receipt.note else []),
            *([f"{receipt.rejected} REJECTED"] if receipt.rejected else []),
        ]
        print(f"{name}: {count} of {todo}: {receipt.label}: {', '.join(parts)}", flush=True)
        yield receipt


def walk(paths: Sequence[str], *, every: float = 10.0) -> Iterator[str]:
    """Passes paths on and shows their count on stderr: a bar on a terminal, a line every `every` seconds in a log."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar("files", console) as bar:
            yield from bar.track(paths)
        return
    start = printed = time.monotonic()
    for count, path in enumerate(paths):
        now = time.monotonic()
        if count and now - printed >= every:
            left = (now - start) / count * (len(paths) - count)
            print(f"files: {count} of {len(paths)}, {left:.0f} s left", file=sys.stderr, flush=True)
            printed = now
        yield path


def amount(size: float) -> str:
    """Returns a size in bytes as text in powers of 1000: `1.23 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _bar(name: str, console: Console) -> Progress:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
