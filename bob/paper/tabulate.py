"""Tables and contact sheets from results (step 5). A cell is the mean over seeds; missing cells are marked."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bob import store
from bob.core.settings import Run
from bob.core.types import Outcome
from bob.paper import layouts, render
from bob.paper.contact_sheet import contact_sheet
from bob.paper.layouts import SEPARATOR, Layout
from bob.store import schema, tables
from bob.store.images import read_images

__all__ = ["Final", "collect", "rows", "write"]

Final = tuple[Run, pa.Table | None]
"""A run, with its data set's name in the results, and its final training's rows of schema.RESULTS; None if missing."""


def write(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str, layout: Layout = layouts.PLAIN
) -> pa.Table:
    """Writes `tables/NAME.parquet`, `.csv`, `.md`, `.tex` and a contact sheet for each data set, shots and seed.

    Returns:
        Rows of schema.TABLES.
    """
    table = collect(outcomes, artefacts, name=name, layout=layout)
    artefacts.write_table(f"tables/{name}.parquet", table, store.provenance([outcome.run for outcome in outcomes]))
    texts = {"csv": render.csv_text(table)}
    texts |= {"md": render.markdown(table, layout), "tex": render.latex(table, layout)}
    for kind, text in texts.items():
        artefacts.write(f"tables/{name}.{kind}", text.encode())
    for split in dict.fromkeys(outcome.split for outcome in outcomes):
        _write_sheet([outcome for outcome in outcomes if outcome.split == split], artefacts, name=name)
    return table


def collect(outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str, layout: Layout) -> pa.Table:
    """Returns rows of schema.TABLES from the final trainings that the store holds."""
    finals: dict[str | Run, Final] = {}
    for outcome in outcomes:
        results = None
        if outcome.final and artefacts.exists(outcome.final):
            results = artefacts.read_checked(outcome.final, schema.RESULTS, least=1)
        finals[outcome.final or outcome.run] = dataclasses.replace(outcome.run, dataset=outcome.dataset), results
    return rows(list(finals.values()), layout, name=name)


def _write_sheet(outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str) -> None:
    """Writes the contact sheet of the images of one split."""
    folders = {f"{outcome.run.method} ({outcome.run.checkpoint})": outcome.images for outcome in outcomes}
    images = {title: read_images(artefacts, folder) for title, folder in folders.items() if folder}
    first = outcomes[0]
    path = f"tables/{name}-{store.slug(first.dataset)}-{first.run.setting}.png"
    artefacts.write(path, contact_sheet(first.run, first.shots, images))


def rows(finals: Sequence[Final], layout: Layout, *, name: str) -> pa.Table:
    """Arranges test accuracies by the layout, averaged over seeds, beside the paper's numbers.

    A few-shot accuracy is the mean over images. A long tail has four columns, each a mean over classes of class
    accuracy: many, medium and few shots, and all. Where several data sets are tested at the same
    shots, a column with their mean follows; without one of its cells the mean is missing.

    Args:
        finals: the runs, in the order of rows and columns, and their results.
        layout: layout of the table.
        name: name of the table.

    Returns:
        Rows of schema.TABLES, in per cent.
    """
    accuracies: dict[layouts.Place, list[float]] = {}
    for run, results in finals:
        measured = results.to_pylist() if results is not None else []
        tested = {row["metric"]: row["value"] for row in measured if row["split"] == "test"}
        for metric, column in layout.columns(run).items():
            values = accuracies.setdefault((SEPARATOR.join(layout.row(run)), column), [])
            if metric in tested:
                values.append(100 * tested[metric])
    comparable = not layout.dataset or {run.dataset for run, _ in finals} == {layout.dataset}
    printed = layout.printed() if comparable else {}
    columns = list(dict.fromkeys(column for _, column in accuracies))
    rows = []
    for row in dict.fromkeys(row for row, _ in accuracies):
        cells = [_cell(name, row, column, accuracies.get((row, column), []), printed) for column in columns]
        rows += [*cells, *_averages(cells)]
    return tables.from_rows(rows, schema.TABLES)


def _cell(
    name: str, row: str, column: str, values: Sequence[float], printed: Mapping[layouts.Place, float]
) -> dict[str, Any]:
    ours, paper = statistics.fmean(values) if values else None, printed.get((row, column))
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return _row(name, row, column, ours, deviation, len(values), paper)


def _row(
    name: str, row: str, column: str, ours: float | None, deviation: float | None, seeds: int, paper: float | None
) -> dict[str, Any]:
    return {
        "table": name,
        "row": row,
        "column": column,
        "ours": ours,
        "ours_std": deviation,
        "seeds": seeds,
        "paper": paper,
        "difference": None if ours is None or paper is None else ours - paper,
    }


def _averages(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the mean over data sets for each number of shots that has several."""
    by_shots: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["column"].endswith("-shot"):
            by_shots.setdefault(cell["column"].rpartition(" ")[2], []).append(cell)
    averages = []
    for shots, group in by_shots.items():
        if len(group) > 1:
            ours, paper = (_mean([cell[name] for cell in group]) for name in ("ours", "paper"))
            seeds = min(cell["seeds"] for cell in group)
            averages.append(_row(group[0]["table"], group[0]["row"], f"mean {shots}", ours, None, seeds, paper))
    return averages


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if len(numbers) == len(values) else None
