"""The paper's countable statements, recomputed from its printed numbers and from ours."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bob.paper import layouts
from bob.paper.layouts import SEPARATOR
from bob.store import schema
from bob.store.tables import from_rows

__all__ = ["CLAIMS", "Claim", "markdown", "rows"]

Cells = Mapping[tuple[str, str], float]
"""(row, column) of a whole table -> accuracy in per cent."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A countable statement about one table."""

    table: str
    """Name of the table."""
    statement: str
    says: str
    """The paper's words on the statement, and their section."""
    compute: Callable[[Cells], float]
    """The statement's number from the table's cells. Raises KeyError or ValueError if the table lacks such cells."""
    unit: str = "points"


def _settings(cells: Cells) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    """Returns Table 1 as (backbone, column) -> (method, version) -> accuracy, without the means over data sets."""
    settings: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for (row, column), value in cells.items():
        backbone, method, version = row.split(SEPARATOR)
        if not column.startswith("mean "):
            settings.setdefault((backbone, column), {})[method, version] = value
    return settings


def _bob(rows: Mapping[tuple[str, str], float], version: str = "") -> float:
    """Returns the accuracy of BOB in one setting, the better of its versions that start with `version`."""
    return max(value for (method, sd), value in rows.items() if method == "BOB" and sd.startswith(version))


def _other(rows: Mapping[tuple[str, str], float]) -> float:
    """Returns the best accuracy of the other methods in one setting, Real Only included."""
    return max(value for (method, _), value in rows.items() if method != "BOB")


def _leads(cells: Cells, version: str = "") -> list[float]:
    """Returns the lead of BOB over the best other method in each setting, in points."""
    return [round(_bob(rows, version) - _other(rows), 2) for rows in _settings(cells).values()]


def _gains(cells: Cells) -> list[float]:
    """Returns the gain of each row of BOB over Real Only, without Pets, in points."""
    return [
        round(value - rows["Real Only", ""], 2)
        for (_, column), rows in _settings(cells).items()
        for (method, _), value in rows.items()
        if method == "BOB" and not column.startswith("pets")
    ]


def _five_for_ten(cells: Cells) -> float:
    """Returns the number of settings, without Pets, in which 5 shots with BOB beat 10 shots alone."""
    settings = _settings(cells)
    pairs = [
        (rows, settings[backbone, column.replace(" 5-shot", " 10-shot")])
        for (backbone, column), rows in settings.items()
        if column.endswith(" 5-shot") and not column.startswith("pets")
    ]
    return sum(_bob(five) > ten["Real Only", ""] for five, ten in pairs)


def _behind_on_pets(cells: Cells) -> float:
    """Returns the largest lead of another method over BOB on Pets, in points."""
    settings = {place: rows for place, rows in _settings(cells).items() if place[1].startswith("pets")}
    return max(round(_other(rows) - _bob(rows), 2) for rows in settings.values())


def _tail_lead(cells: Cells) -> float:
    """Returns the smallest lead of BOB on all classes of CUB-LT over the imbalance factors, in points."""
    leads: dict[str, dict[str, float]] = {}
    for (row, column), value in cells.items():
        if column.startswith("CUB-LT") and column.endswith(" all"):
            best = leads.setdefault(column, {"BOB": 0.0, "other": 0.0})
            method = "BOB" if row.startswith("BOB") else "other"
            best[method] = max(best[method], value)
    return min(round(lead["BOB"] - lead["other"], 2) for lead in leads.values())


def _ablated(marginalisation: str, preservation: str) -> Callable[[Cells], float]:
    """Returns a function that computes the gain of a cell of Table 3 over the cell with neither switch."""

    def gain(cells: Cells) -> float:
        accuracy = cells[layouts.marginalisation(marginalisation), f"{preservation} preservation"]
        baseline = cells[layouts.marginalisation("none"), "without preservation"]
        return round(accuracy - baseline, 2)

    return gain


def _longer(method: str) -> Callable[[Cells], float]:
    """Returns a function that computes a method's gain in Table 6 from the first number of epochs to the second."""

    def gain(cells: Cells) -> float:
        first, second = [value for (_, column), value in cells.items() if column == method][:2]
        return round(second - first, 2)

    return gain


def _epochs_ahead(cells: Cells) -> float:
    """Returns how many numbers of epochs in Table 6 have BOB ahead of DataDream."""
    rows = dict.fromkeys(row for row, _ in cells)
    return sum(cells[row, "BOB"] > cells[row, "DataDream"] for row in rows)


CLAIMS = (
    Claim(
        table="table1",
        statement="settings in which BOB, the better of its versions, is best",
        says="outperforms in most of 24 (sec. 1, 4.2)",
        compute=lambda cells: sum(lead > 0 for lead in _leads(cells)),
        unit="settings",
    ),
    Claim(
        table="table1",
        statement="settings in which it is best by 2 points or more",
        says="14 of 24 (abstract), 18 of 24 (introduction)",
        compute=lambda cells: sum(lead >= 2 for lead in _leads(cells)),
        unit="settings",
    ),
    *(
        Claim(
            table="table1",
            statement=f"settings in which BOB with Stable Diffusion {version} alone is better than all others",
            says="",
            compute=lambda cells, version=version: sum(lead > 0 for lead in _leads(cells, version)),
            unit="settings",
        )
        for version in ("v1.5", "v2.1")
    ),
    Claim(
        table="table1",
        statement="largest lead over the best other method",
        says="7.4 (abstract); up to 10.25 (sec. 4.2)",
        compute=lambda cells: max(_leads(cells)),
    ),
    Claim(
        table="table1",
        statement="smallest gain over Real Only, Pets apart",
        says="at least 6.36 (sec. 4.2)",
        compute=lambda cells: min(_gains(cells)),
    ),
    Claim(
        table="table1",
        statement="largest gain over Real Only, Pets apart",
        says="up to 34.54 (sec. 4.2)",
        compute=lambda cells: max(_gains(cells)),
    ),
    Claim(
        table="table1",
        statement="pairs of backbone and data set, Pets apart, in which 5 shots with BOB beat 10 shots alone",
        says="all (sec. 4.2)",
        compute=_five_for_ten,
        unit="pairs",
    ),
    Claim(
        table="table1",
        statement="how far BOB, the better of its versions, is behind the best on Pets at most",
        says="within 1 % (sec. 4.2)",
        compute=_behind_on_pets,
    ),
    Claim(
        table="table2",
        statement="smallest lead on all classes of CUB-LT",
        says="at least 4 % (sec. 4.3)",
        compute=_tail_lead,
    ),
    Claim(
        table="table3",
        statement="gain by marginalisation over the data set alone",
        says="3 % (sec. 4.4)",
        compute=_ablated("dataset", "without"),
    ),
    Claim(
        table="table3",
        statement="gain by preservation alone",
        says="from 68 to 65.90 (sec. 4.4)",
        compute=_ablated("none", "with"),
    ),
    Claim(
        table="table3",
        statement="gain by both",
        says="73.78 from 68 (sec. 4.4)",
        compute=_ablated("dataset", "with"),
    ),
    Claim(
        table="table6",
        statement="numbers of epochs at which BOB is ahead of DataDream",
        says="every one (sec. B.1)",
        compute=_epochs_ahead,
        unit="numbers",
    ),
    *(
        Claim(
            table="table6",
            statement=f"gain of {method} by the second number of epochs over the first",
            says=f"{says} % (sec. B.1)",
            compute=_longer(method),
        )
        for method, says in (("DataDream", 2), ("BOB", 6))
    ),
)


def rows(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Computes every statement's number from the paper's cells and from ours.

    Args:
        tables: `table1`, `table2`, `table3` and `table6` -> rows of schema.TABLES; missing tables are skipped.

    Returns:
        Rows of schema.CLAIMS; a number that needs a missing cell is null.
    """
    counted = []
    for claim in CLAIMS:
        if claim.table in tables:
            table_rows = tables[claim.table].to_pylist()
            values = {column: _value(claim, table_rows, column) for column in ("ours", "paper")}
            texts = {name: getattr(claim, name) for name in ("table", "statement", "says", "unit")}
            counted.append({**texts, **values})
    return from_rows(counted, schema.CLAIMS)


def _value(claim: Claim, rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    cells = {(row["row"], row["column"]): row[column] for row in rows}
    if None in cells.values():
        return None
    try:
        return float(claim.compute(cells))
    except (KeyError, ValueError):  # skyworld has no Pets, an experiment of two methods no Real Only
        return None


def markdown(table: pa.Table) -> str:
    """Returns the statements as a Markdown table, one a line."""
    lines = ["| statement | the paper says | from its cells | ours |", "|---|---|---|---|"]
    for row in table.to_pylist():
        numbers = ["-" if row[name] is None else f"{row[name]:g} {row['unit']}" for name in ("paper", "ours")]
        lines.append(f"| {row['statement']} | {row['says'] or '-'} | {numbers[0]} | {numbers[1]} |")
    return "\n".join(lines) + "\n"
