"""Tables as Markdown, LaTeX (booktabs), CSV and terminal output, with the best and second best cells marked."""

import csv
import io
from collections.abc import Hashable, Mapping
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from bob.paper.layouts import SEPARATOR, Layout

__all__ = ["csv_text", "latex", "markdown", "ranks", "show"]

Row = Mapping[str, Any]
Grid = list[list[tuple[str, int]]]
"""A line a row: text and rank (1 best, 2 second best, 0 none) of each cell, the row's name first."""


def ranks(table: pa.Table, layout: Layout, *, source: str = "ours") -> dict[tuple[str, str], int]:
    """Ranks cells: (row, column) -> 1 for the best of its rivals, 2 for the second best; others are left out.

    Values are compared as printed, to two digits: equals share a rank, and after two best there is no second. Cells
    without rivals have no rank.

    Args:
        table: rows of schema.TABLES.
        layout: layout that says which cells are rivals.
        source: whose values to rank, `ours` or `paper`.
    """
    groups: dict[Hashable, dict[tuple[str, str], float]] = {}
    for row in table.to_pylist():
        if row[source] is not None:
            place = row["row"], row["column"]
            groups.setdefault(layout.rivals(*place), {})[place] = round(row[source], 2)
    placed = {}
    for group in groups.values():
        for place, value in group.items():
            better = sum(rival > value for rival in group.values())
            if better < 2 <= len(group):
                placed[place] = better + 1
    return placed


def text(row: Row) -> str:
    """Returns a cell's text, `54.31 ± 1.20 (3 seeds), paper 53.90, +0.41`; a dash stands for a missing result."""
    spread = "" if row["ours_std"] is None else f" ± {row['ours_std']:.2f}"
    ours = "-" if row["ours"] is None else f"{row['ours']:.2f}{spread}"
    seeds = f" ({row['seeds']} seeds)" if row["seeds"] > 1 else ""
    if row["paper"] is None:
        return ours + seeds
    difference = "" if row["difference"] is None else f", {row['difference']:+.2f}"
    return f"{ours}{seeds}, paper {row['paper']:.2f}{difference}"


def _grid(table: pa.Table, layout: Layout) -> tuple[list[str], Grid]:
    rows = table.to_pylist()
    columns = list(dict.fromkeys(row["column"] for row in rows))
    cells = {(row["row"], row["column"]): text(row) for row in rows}
    marks = ranks(table, layout)
    grid = []
    for name in dict.fromkeys(row["row"] for row in rows):
        line = [(part, 0) for part in name.split(SEPARATOR)]
        line += [(cells.get((name, column), "-"), marks.get((name, column), 0)) for column in columns]
        grid.append(line)
    return [*layout.heads, *columns], grid


def markdown(table: pa.Table, layout: Layout) -> str:
    """Returns a table in GitHub's Markdown, the best cells bold, the second best underlined."""
    heads, grid = _grid(table, layout)
    lines = [heads, ["---"] * len(heads)]
    wrap = ("{}", "**{}**", "<u>{}</u>")
    lines += [[wrap[rank].format(words.replace("|", r"\|")) for words, rank in line] for line in grid]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(table: pa.Table, layout: Layout) -> str:
    """Returns a LaTeX `tabular` for the package booktabs."""
    heads, grid = _grid(table, layout)
    wrap = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
    lines = [[wrap[rank].format(_escaped(words)) for words, rank in line] for line in grid]
    shape = "l" * len(layout.heads) + "c" * (len(heads) - len(layout.heads))
    body = "".join(f"{' & '.join(line)} \\\\\n" for line in lines)
    top = " & ".join(map(_escaped, heads))
    return f"\\begin{{tabular}}{{{shape}}}\n\\toprule\n{top} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"


def _escaped(words: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
    }
    return "".join(special.get(c, c) for c in words)


def csv_text(table: pa.Table) -> str:
    """Returns the table's rows as CSV, one cell a line."""
    file = io.StringIO()
    writer = csv.DictWriter(file, table.schema.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.to_pylist())
    return file.getvalue()


def show(table: pa.Table, layout: Layout, *, console: Console | None = None) -> None:
    """Prints a table: aligned on a terminal, as Markdown in a log."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.file.write(markdown(table, layout))
        return
    heads, grid = _grid(table, layout)
    shown = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for line in grid:
        shown.add_row(*(f"{('', '[bold]', '[underline]')[rank]}{words}" for words, rank in line))
    console.print(shown)
