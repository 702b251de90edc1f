"""The paper's countable statements about its tables, each with its source, as functions of a table's cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bob.paper import layouts
from bob.paper.layouts import SEPARATOR

__all__ = ["STATEMENTS", "Claim"]

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


_Rows = Mapping[tuple[str, str], float]
"""(method, version of Stable Diffusion) -> accuracy in per cent, of one setting."""


def _settings(cells: Cells) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    """Returns Table 1 as (backbone, column) -> (method, version) -> accuracy, without the means over data sets."""
    settings: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for (row, column), value in cells.items():
        backbone, method, version = row.split(SEPARATOR)
        if not column.startswith("mean "):
            settings.setdefault((backbone, column), {})[method, version] = value
    return settings


def _bob(rows: _Rows, version: str = "") -> float:
    """Returns the accuracy of BOB in one setting, the better of its versions that start with `version`."""
    return max(value for (method, sd), value in rows.items() if method == "BOB" and sd.startswith(version))


def _other(rows: _Rows, version: str = "") -> float:
    """Returns the best accuracy of the other methods with a version, or with any, Real Only included."""
    known = ("", version)
    return max(value for (method, sd), value in rows.items() if method != "BOB" and (not version or sd in known))


def _leads(cells: Cells, version: str = "", *, within: bool = False, column: str | tuple[str, ...] = "") -> list[float]:
    """Returns the lead of BOB over the best other method in each setting, in points.

    Args:
        cells: of Table 1.
        version: of Stable Diffusion that BOB has; empty for the better of both.
        within: whether the other methods have that version as well.
        column: what the settings' columns start with, or several such words.
    """
    others = version if within else ""
    settings = [rows for (_, name), rows in _settings(cells).items() if name.startswith(column)]
    return [round(_bob(rows, version) - _other(rows, others), 2) for rows in settings]


def _best(least: float, version: str = "", *, within: bool = False) -> Callable[[Cells], float]:
    """Returns a function that counts the settings in which BOB leads by `least` points; by more than 0 if that is 0."""
    return lambda cells: sum(lead >= (least or 0.01) for lead in _leads(cells, version, within=within))


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


def _tail_leads(cells: Cells, columns: str) -> list[float]:
    """Returns the leads of BOB over the best other method on all classes of Table 2's columns that start so."""
    leads: dict[str, dict[str, float]] = {}
    for (row, column), value in cells.items():
        if column.startswith(columns) and column.endswith(" all"):
            best = leads.setdefault(column, {"BOB": 0.0, "other": 0.0})
            method = "BOB" if row.startswith("BOB") else "other"
            best[method] = max(best[method], value)
    return [round(lead["BOB"] - lead["other"], 2) for lead in leads.values()]


def _tail_lead(columns: str) -> Callable[[Cells], float]:
    """Returns a function that computes the smallest of `_tail_leads`."""
    return lambda cells: min(_tail_leads(cells, columns))


def _ablated(cell: tuple[str, str], baseline: tuple[str, str]) -> Callable[[Cells], float]:
    """Returns a function that computes the gain of a cell of Table 3, (marginalisation, preservation), over another."""

    def accuracy(cells: Cells, place: tuple[str, str]) -> float:
        return cells[layouts.marginalisation(place[0]), f"{place[1]} preservation"]

    return lambda cells: round(accuracy(cells, cell) - accuracy(cells, baseline), 2)


def _longer(method: str) -> Callable[[Cells], float]:
    """Returns a function that computes a method's gain in Table 6 from the first number of epochs to the second."""

    def gain(cells: Cells) -> float:
        first, second = [value for (_, column), value in cells.items() if column == method][:2]
        return round(second - first, 2)

    return gain


def _peak(method: str) -> Callable[[Cells], float]:
    """Returns a function that gives the number of epochs at which a method is best in Table 6."""

    def epochs(cells: Cells) -> float:
        rows = {row: value for (row, column), value in cells.items() if column == method}
        return float(max(rows, key=lambda row: rows[row]).split()[0])

    return epochs


def _epochs_ahead(cells: Cells) -> float:
    """Returns how many numbers of epochs in Table 6 have BOB ahead of DataDream."""
    rows = dict.fromkeys(row for row, _ in cells)
    return sum(cells[row, "BOB"] > cells[row, "DataDream"] for row in rows)


_TABLE1 = (
    Claim(
        table="table1",
        statement="settings in which BOB, the better of its versions, is best",
        says="18 of 24 (abstract; sec. 1, contributions)",
        compute=_best(0),
        unit="settings",
    ),
    Claim(
        table="table1",
        statement="settings in which it is best by 2 points or more",
        says="14 of 24 (abstract); 18 of 24 (sec. 1)",
        compute=_best(2),
        unit="settings",
    ),
    *(
        Claim(
            table="table1",
            statement=f"settings in which BOB with Stable Diffusion {version} {than}{by}",
            says="",
            compute=_best(least, version, within=within),
            unit="settings",
        )
        for version, within, than in (
            ("v2.1", False, "alone is better than all others"),
            ("v1.5", False, "alone is better than all others"),
            ("v1.5", True, "is better than the others with v1.5 and Real Only"),
        )
        for least, by in ((0, ""), (2, ", by 2 points or more"))
    ),
    *(
        Claim(
            table="table1",
            statement=f"{size} lead over the best other method, Pets apart",
            says=f"{says} (sec. 4.2)",
            compute=lambda cells, choose=choose: choose(_leads(cells, column=("aircraft", "cars", "cub"))),
        )
        for size, choose, says in (("smallest", min, "at least 2.77"), ("largest", max, "up to 10.25"))
    ),
    *(
        Claim(
            table="table1",
            statement=f"{size} lead over the best other method on Aircraft with {shots} shots",
            says=says,
            compute=lambda cells, shots=shots, choose=choose: choose(_leads(cells, column=f"aircraft {shots}-")),
        )
        for shots, size, choose, says in (
            (5, "smallest", min, "3.78 (sec. 4.2)"),
            (5, "largest", max, "7.33 (sec. 4.2); 7.4 (abstract, sec. 1)"),
            (10, "smallest", min, "4.65 (sec. 4.2)"),
            (10, "largest", max, "5.79 (sec. 4.2)"),
        )
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
        says="within 1 % (sec. 1, 4.2)",
        compute=lambda cells: -min(_leads(cells, column="pets")),
    ),
)

_TABLE2 = tuple(
    Claim(table="table2", statement=statement, says=f"{says} (sec. 4.3)", compute=_tail_lead(columns))
    for statement, says, columns in (
        ("smallest lead on all classes of CUB-LT", "at least 4 %", "CUB-LT"),
        ("lead on all classes of CUB-LT IF 100", "at least 6 %", "CUB-LT IF 100 "),
        ("lead on all classes of Flower-LT IF 100", "2 % to 3 %", "Flower-LT IF 100 "),
        ("lead on all classes of Flower-LT IF 50", "within 1 %", "Flower-LT IF 50 "),
        ("lead on all classes of Flower-LT IF 10", "within 1 %", "Flower-LT IF 10 "),
    )
)

_NEITHER = ("none", "without")
_TABLE3 = tuple(
    Claim(table="table3", statement=statement, says=f"{says} (sec. 4.4)", compute=_ablated(cell, baseline))
    for statement, says, cell, baseline in (
        ("gain by marginalisation over the data set alone", "3 %", ("dataset", "without"), _NEITHER),
        ("gain by preservation alone", "from 68 to 65.90", ("none", "with"), _NEITHER),
        ("gain by both", "73.78 from 68", ("dataset", "with"), _NEITHER),
        ("gain by marginalisation over the class alone", "no impact", ("class", "without"), _NEITHER),
        (
            "gain by marginalisation over the class, beside preservation",
            "from 65.90 to 64.39",
            ("class", "with"),
            ("none", "with"),
        ),
    )
)

_TABLE6 = (
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
    *(
        Claim(
            table="table6",
            statement=f"number of epochs at which {method} is best",
            says="1,000 (sec. B.1)",
            compute=_peak(method),
            unit="epochs",
        )
        for method in ("DataDream", "BOB")
    ),
)

STATEMENTS = (*_TABLE1, *_TABLE2, *_TABLE3, *_TABLE6)
"""In the order of the tables."""
