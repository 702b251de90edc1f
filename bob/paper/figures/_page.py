"""Style and files of the figures: byte-equal for equal numbers, on a white background for dark pages."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bob import store
from bob.core.types import Outcome
from bob.paper.figures._rows import Row
from bob.store import schema, tables

__all__ = ["COLOURS", "STYLES", "legend", "page", "save", "style", "table"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
STYLES = ("-", "--", "-.", ":")
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs everywhere
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "bob",  # ids of an SVG's parts are random otherwise
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Context in which figures are made and saved, independent of the user's settings of matplotlib."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def page(width: float = 5.0, height: float = 3.2) -> Figure:
    """Returns an empty white figure; width and height in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def legend(figure: Figure) -> None:
    """Adds a legend of lines and marks above the axes, where it covers nothing."""
    labels = [text for axes in figure.axes for text in axes.get_legend_handles_labels()[1]]
    columns = max(1, min(len(labels), round(11 * figure.get_figwidth() / (max(map(len, labels)) + 6))))
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)


def save(figure: Figure, artefacts: store.Store, *, name: str) -> None:
    """Writes figures/NAME.svg and .pdf."""
    for kind in ("svg", "pdf"):
        buffer = io.BytesIO()
        undated = {"Date": None} if kind == "svg" else {"CreationDate": None}
        figure.savefig(buffer, format=kind, metadata=undated)
        artefacts.write(f"figures/{name}.{kind}", buffer.getvalue())


def table(rows: Sequence[Row], outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str) -> None:
    """Writes figures/NAME.parquet, rows of schema.METRICS."""
    runs = [outcome.run for outcome in outcomes]
    artefacts.write_table(f"figures/{name}.parquet", tables.from_rows(rows, schema.METRICS), store.provenance(runs))
