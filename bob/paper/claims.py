"""The paper's countable statements, recomputed from its printed numbers and from ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bob.paper.statements import STATEMENTS, Claim
from bob.store import schema
from bob.store.tables import from_rows

__all__ = ["markdown", "rows"]


def rows(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Computes every statement's number from the paper's cells and from ours.

    Args:
        tables: `table1`, `table2`, `table3` and `table6` -> rows of schema.TABLES; missing tables are skipped.

    Returns:
        Rows of schema.CLAIMS; a number that needs a missing cell is null.
    """
    counted = []
    for claim in STATEMENTS:
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
