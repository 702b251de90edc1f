"""Table of all measures of generated images and of their captions, class by class."""

import statistics
from collections.abc import Sequence

from bob import store
from bob.core.types import Outcome, Unit
from bob.paper.figures import _features, _page, _rows
from bob.steps import embed

__all__ = ["METRICS", "draw", "units"]

METRICS = {
    "fid": "FID",
    "fid_floor": "FID, real to real",
    "kid": "KID",
    "kid_floor": "KID, real to real",
    "diversity": "diversity, images",
    "context_entropy": "contexts, bits",
    "leakage": "leakage, %",
}
"""Metric -> heading of its column."""


def units(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str = "", against: str = "train"
) -> list[Unit]:
    """Units of the features that the measures need; see `embed.units`."""
    return embed.units(outcomes, artefacts, extractor=extractor, against=against)


def draw(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str, extractor: str = "", against: str = "train"
) -> str:
    """Writes figures/NAME.parquet, and no picture.

    Returns:
        A Markdown table: means over classes and seeds, a row a method. Leakage is in per cent here.

    Raises:
        ValueError: if features are missing.
    """
    sets = _features.read(outcomes, artefacts, extractor=extractor, against=against)
    rows = [row for images in sets for row in (*_rows.distances(images), *_rows.contexts(images, artefacts))]
    _page.table(rows, outcomes, artefacts, name=name)
    values = {metric: _rows.values(rows, metric) for metric in METRICS}
    methods = dict.fromkeys(method for by_method in values.values() for method in by_method)
    lines = ["| mean over classes | " + " | ".join(METRICS.values()) + " |", "|---" * (1 + len(METRICS)) + "|"]
    for method in methods:
        cells = [_cell(metric, list(values[metric].get(method, {}).values())) for metric in METRICS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(metric: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{100 * statistics.fmean(values):.1f}" if metric == "leakage" else f"{statistics.fmean(values):.4g}"
