"""Figure 6: histogram over the classes of another method's FID minus BOB's (sec. B.2)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from bob import store
from bob.core.types import Outcome, Unit
from bob.paper.figures import _features, _page, _rows
from bob.steps import embed

__all__ = ["draw", "edges", "units"]

_MARGIN = 5.0  # the paper's considerable difference in FID; it means nothing with another extractor


def units(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str = "", against: str = "train"
) -> list[Unit]:
    """Units of the features that the figure needs; see `embed.units`."""
    return embed.units(outcomes, artefacts, extractor=extractor, against=against)


def draw(
    outcomes: Sequence[Outcome],
    artefacts: store.Store,
    *,
    name: str,
    ours: str = "bob",
    other: str = "datadream",
    extractor: str = "",
    against: str = "train",
) -> str:
    """Writes the histogram of FID(other) - FID(ours) over the classes, and its numbers.

    Returns:
        Markdown: the numbers of classes in which ours is lower and lower by more than 5, and the median difference.

    Raises:
        ValueError: if one of the methods is not among the runs, or features are missing.
    """
    sets = _features.read(outcomes, artefacts, extractor=extractor, against=against)
    rows = [row for images in sets for row in _rows.distances(images) if row["metric"] in ("fid", "fid_floor")]
    fids = _rows.values(rows, "fid")
    for method in (ours, other):
        if method not in fids:
            raise ValueError(
                f"this figure compares {other} with {ours}, each of one checkpoint and number of shots, but the runs"
                f" have {', '.join(fids)}: name two of these"
            )
    _page.table(rows, outcomes, artefacts, name=name)
    leads = np.array([fids[other][place] - fids[ours][place] for place in fids[ours] if place in fids[other]])
    with _page.style():
        figure = _page.page()
        axes = figure.add_subplot()
        bins = edges(leads).tolist()
        for side, colour, words in (
            (leads[leads > 0], _page.COLOURS[0], f"{ours} lower: {(leads > 0).sum()}"),
            (leads[leads <= 0], _page.COLOURS[1], f"not lower: {(leads <= 0).sum()}"),
        ):
            axes.hist(side, bins, color=colour, edgecolor="white", linewidth=0.5, label=words)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel=f"FID({other}) - FID({ours}) of a class", ylabel="classes")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _page.legend(figure)
        _page.save(figure, artefacts, name=name)
    return _summary(leads, ours, other, median=float(np.median(list(fids[other].values()))))


def _summary(leads: np.ndarray, ours: str, other: str, *, median: float) -> str:
    more, less = (leads > _MARGIN).sum(), (leads < -_MARGIN).sum()
    return (
        f"FID of {ours} is lower than that of {other} in {(leads > 0).sum()} of {len(leads)} classes, in {more} of them"
        f" by more than {_MARGIN:g}; it is higher by more than {_MARGIN:g} in {less}. Median difference:"
        f" {np.median(leads):.4g}, {other}'s median being {median:.4g}.\n"
    )


def edges(values: np.ndarray) -> np.ndarray:
    """Returns the edges of about 20 bins, each 1, 2 or 5 times a power of ten wide; 0 is an edge."""
    span = max(values.max(), 0.0) - min(values.min(), 0.0) or 1.0
    power = 10.0 ** np.floor(np.log10(span / 20))
    width = power * next(factor for factor in (1, 2, 5, 10) if power * factor >= span / 20)
    first, last = np.floor(min(values.min(), 0.0) / width), np.ceil(max(values.max(), 0.0) / width)
    return width * np.arange(first, max(last, first + 1) + 1)
