"""Table of a rehearsal, for a terminal and for a Markdown file."""

import math
import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bob.commands.rehearsed import Rehearsal, Trial
from bob.core.step_table import STEPS

__all__ = ["markdown", "show", "title"]

_COLUMNS = (
    *("step", "model", "weights", "work", "at once", "seconds", "a second", "GB", "predicted", "TFLOP/s", "of peak"),
    "",
)


def title(step: str, model: str, kind: str) -> str:
    """Returns the name of a kind of work in lines: `finetune sd15 (new words)`."""
    return f"{step} {model} ({kind})" if kind else f"{step} {model}"


def show(rehearsals: Sequence[Rehearsal]) -> None:
    """Prints a row for each kind of work, and what the rates count."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for row in _rows(rehearsals):
        table.add_row(*row)
    Console(highlight=False, width=None if sys.stdout.isatty() else 180).print(table)
    for line in _legend(rehearsals):
        print(line)


def markdown(rehearsals: Sequence[Rehearsal]) -> str:
    """Returns the same as a Markdown table with its legend."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *_rows(rehearsals)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    legend = "\n".join(f"- {line}" for line in _legend(rehearsals))
    return f"{table}\n\n{legend}\n"


def _rows(rehearsals: Sequence[Rehearsal]) -> Iterator[tuple[str, ...]]:
    for rehearsal in rehearsals:
        for trial in rehearsal.trials:
            yield (
                rehearsal.step,
                rehearsal.model,
                "RANDOM" if rehearsal.random else "real",
                trial.kind,
                f"{trial.images}",
                f"{trial.seconds:.3g}",
                f"{trial.per_second:,.3g}",
                f"{trial.bytes / 1e9:.2f}",
                f"{trial.predicted / 1e9:.2f}" if trial.predicted else "-",
                f"{trial.flops * trial.per_second / 1e12:.3g}",
                _share(trial),
                trial.note,
            )


def _share(trial: Trial) -> str:
    return "-" if math.isnan(trial.share) else f"{trial.share:.0%} {trial.precision}"


def _legend(rehearsals: Sequence[Rehearsal]) -> Iterator[str]:
    for step in dict.fromkeys(rehearsal.step for rehearsal in rehearsals):
        yield f"a second of {step}: {STEPS[step].effort}"
    if any(rehearsal.random for rehearsal in rehearsals):
        yield "RANDOM: random weights of the same architecture, because the real ones are not on this machine"
    for device in dict.fromkeys(rehearsal.device for rehearsal in rehearsals):
        if device == "cpu":
            yield "cpu, one thread: GB are the resident set with the libraries; its peak is that of a matrix product"
        elif device:
            yield f"{device}: GB are what torch allocated at most; its peak is the data sheet's"
