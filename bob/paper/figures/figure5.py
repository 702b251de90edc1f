"""Figure 5: a captioner's own accuracy against that of the classifier trained with its captions (sec. 4.4)."""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from bob import store
from bob.core.types import Outcome, Unit
from bob.paper.figures import _page, _rows
from bob.steps import recognise
from bob.store import schema

__all__ = ["draw", "units"]

_IMAGES = 1_000  # test images per captioner, about


def units(outcomes: Sequence[Outcome], artefacts: store.Store, *, images: int = _IMAGES) -> list[Unit]:
    """Units in which each captioner recognises a fixed, class-balanced subset of about `images` test images.

    Raises:
        ValueError: if no run has captions.
    """
    captioned = _captioned(outcomes)
    recognitions = [unit for outcome in captioned for unit in recognise.units(outcome, artefacts, images=images)]
    return list({unit.target: unit for unit in recognitions}.values())


def draw(outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str, images: int = _IMAGES) -> str:
    """Writes the figure and its numbers: a point per captioner, a line per method without captions.

    Args:
        outcomes: outcomes of runs with a final training that differ in captioner and seed.
        artefacts: store of the outcomes.
        name: name of the figure.
        images: argument of `units`.

    Returns:
        A Markdown table: both accuracies of each captioner, in per cent.

    Raises:
        ValueError: if the recognition of a captioner or the final training of a run is missing.
    """
    rows = [row for outcome in outcomes for row in _rows_of(outcome, artefacts, images)]
    _page.table(rows, outcomes, artefacts, name=name)
    by_captioner = {o.run.captioner: _means(rows, o.run.captioner) for o in _captioned(outcomes)}
    plain = {o.run.method: _mean(rows, "test_accuracy", method=o.run.method) for o in outcomes if not o.captions}
    lines = ["| captioner | itself, % | classifier, % |", "|---|---|---|"]
    with _page.style():
        figure = _page.page(4.4, 3.4)
        axes = figure.add_subplot()
        for number, (captioner, (own, tested)) in enumerate(by_captioner.items()):
            colour, marker = _page.COLOURS[number % len(_page.COLOURS)], "os^Dv"[number % 5]
            axes.plot(own, tested, marker, color=colour, markerfacecolor="none", markersize=8, label=captioner)
            lines.append(f"| {captioner} | {own:.2f} | {tested:.2f} |")
        for number, (method, tested) in enumerate(plain.items()):
            axes.axhline(tested, color="#767676", linestyle=_page.STYLES[1 + number % 3], label=method)
            lines.append(f"| none ({method}) | | {tested:.2f} |")
        axes.set(xlabel="captioner's own accuracy, %", ylabel="classifier's test accuracy, %")
        axes.set(
            xlim=_reach([own for own, _ in by_captioner.values()]),
            ylim=_reach([*(tested for _, tested in by_captioner.values()), *plain.values()]),
        )
        _page.legend(figure)
        _page.save(figure, artefacts, name=name)
    return "\n".join(lines) + "\n"


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis with all values: at least 10 points apart, so that noise does not look like a trend."""
    margin = max(0.15 * (max(values) - min(values)), 5 - (max(values) - min(values)) / 2)
    return min(values) - margin, max(values) + margin


def _captioned(outcomes: Sequence[Outcome]) -> list[Outcome]:
    captioned = [outcome for outcome in outcomes if outcome.captions]
    if not captioned:
        raise ValueError("none of these runs asks a captioner, so there is nothing to compare: add BOB's")
    return captioned


def _rows_of(outcome: Outcome, artefacts: store.Store, images: int) -> Iterator[_rows.Row]:
    if not outcome.final:
        raise ValueError("Figure 5 wants runs that have come to their final training: run the whole experiment")
    tested = artefacts.read_checked(outcome.final, schema.RESULTS, least=1).to_pylist()
    (accuracy,) = [row for row in tested if (row["split"], row["metric"]) == ("test", "accuracy")]
    yield _rows.row(outcome, _rows.ALL, "test_accuracy", accuracy["value"], accuracy["n"])
    if not outcome.captions:
        return
    targets = [unit.target for unit in recognise.units(outcome, artefacts, images=images)]
    guesses = [row for target in targets for row in artefacts.read_checked(target, schema.RECOGNISED).to_pylist()]
    for class_id in (_rows.ALL, *sorted({row["class_id"] for row in guesses})):
        hits = [row["guess"] == row["class_id"] for row in guesses if class_id in (_rows.ALL, row["class_id"])]
        yield _rows.row(outcome, class_id, "captioner_accuracy", float(np.mean(hits)), len(hits))


def _means(rows: Sequence[_rows.Row], captioner: str) -> tuple[float, float]:
    own, tested = (_mean(rows, m, captioner=captioner) for m in ("captioner_accuracy", "test_accuracy"))
    return own, tested


def _mean(rows: Sequence[_rows.Row], metric: str, **only: str) -> float:
    """Mean of a metric over the seeds, in per cent."""
    overall = [row for row in rows if row["metric"] == metric and row["class_id"] == _rows.ALL]
    return 100 * statistics.fmean(row["value"] for row in overall if all(row[k] == v for k, v in only.items()))
