"""`bob methods`: lists the methods that --method takes."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bob.core import registry
from bob.methods import load

__all__ = ["MethodsCommand", "show"]


@dataclass(frozen=True, kw_only=True)
class MethodsCommand:
    """Lists the methods that --method takes, those of this package and of installed plug-ins.

    bob methods
    """

    def main(self, arguments: Sequence[str]) -> int:
        """Prints the table; returns the exit code."""
        show()
        return 0


def show() -> None:
    """Prints a table of all methods: what each tunes and draws, its sampler, and its switches with their defaults."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("method", "tunes", "draws", "guidance, steps", "needs", "switches", "paper"):
        table.add_column(column, overflow="fold")
    for name in registry.names("method"):
        method = load(name)
        needs = [
            need
            for need, is_needed in (("captions", method.needs_captions), ("suffixes", method.needs_suffixes))
            if is_needed
        ]
        switches = [f"{f.name}={_written(getattr(method, f.name))}" for f in dataclasses.fields(method)]
        sampler = f"{method.guidance:g}, {method.steps} {method.scheduler.replace('default', '')}".rstrip()
        cells = (
            name,
            *method.summary,
            sampler if method.draws else "",
            ", ".join(needs),
            "\n".join(switches),
            method.paper,
        )
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _written(value: Any) -> str:
    """Returns a switch's value in the syntax of --method."""
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
