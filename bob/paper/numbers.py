"""The paper's printed numbers: Tables 1, 2, 3 and 6, cell by cell (arXiv:2510.24078).

The CSV files in `bob/paper/` are transcribed from the paper, one row a cell, accuracies in per cent.
"""

import csv
import functools
import importlib.resources
from collections.abc import Mapping

__all__ = ["FILES", "cells"]

FILES = {
    "table1": "table1_fewshot.csv",
    "table2": "table2_longtail.csv",
    "table3": "table3_ablation.csv",
    "table6": "table6_epochs.csv",
}
"""Table -> its file. All columns but the last are the coordinates of a cell."""


@functools.cache
def cells(table: str) -> Mapping[tuple[str, ...], float]:
    """Returns the coordinates of each cell, in the order of the file's columns -> accuracy in per cent."""
    text = (importlib.resources.files("bob") / "paper" / FILES[table]).read_text(encoding="utf-8")
    _, *rows = csv.reader(text.splitlines())
    return {tuple(row[:-1]): float(row[-1]) for row in rows}
