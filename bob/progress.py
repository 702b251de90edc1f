"""What the user sees while units are done: one line a unit, with rate and time left."""

import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bob.types import Receipt

__all__ = ["lines", "report"]

_WORDS = {
    "caption": ("step 1, captions", "shots"),
    "finetune": ("step 2, fine-tunes", "optimiser steps"),
    "generate": ("step 3, images", "images"),
    "classify": ("step 4, classifiers", "epochs"),
}


def report(step: str, todo: int, done: int, receipts: Iterator[Receipt]) -> Iterable[Receipt]:
    """A moving bar above the lines on a terminal; the lines alone in a log."""
    console = Console()
    name, _ = _WORDS[step]
    print(f"{name}: {todo} units to do, {done} done before", flush=True)
    if not todo:
        return
    if not console.is_terminal:
        yield from lines(step, todo, receipts)
        return
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(step, total=todo)
        for receipt in lines(step, todo, receipts):
            bar.advance(task)
            yield receipt


def lines(step: str, todo: int, receipts: Iterable[Receipt]) -> Iterator[Receipt]:
    """Prints a line for each receipt and passes it on."""
    name, what = _WORDS[step]
    start, size = time.monotonic(), 0
    for count, receipt in enumerate(receipts, 1):
        size += receipt.size
        passed = max(1e-9, time.monotonic() - start)
        words = [
            f"{receipt.size} {what} in {receipt.seconds:.1f} s",
            f"{size / passed:.1f} {what}/s in all",
            f"{passed / count * (todo - count):.0f} s left",
            *([receipt.note] if receipt.note else []),
            *([f"{receipt.rejected} REJECTED"] if receipt.rejected else []),
        ]
        print(f"{name}: {count} of {todo}: {receipt.label}: {', '.join(words)}", flush=True)
        yield receipt
