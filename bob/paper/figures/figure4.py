"""Figure 4: density over the classes of the FID between real and generated images, by method (sec. 4.4)."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import gaussian_kde, norm

from bob import store
from bob.core.types import Outcome, Unit
from bob.paper.figures import _features, _page, _rows
from bob.steps import embed

__all__ = ["density", "draw", "units"]

_POINTS = 400  # of a curve


def units(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str = "", against: str = "train"
) -> list[Unit]:
    """Units of the features that the figure needs; see `embed.units`."""
    return embed.units(outcomes, artefacts, extractor=extractor, against=against)


def draw(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str, extractor: str = "", against: str = "train"
) -> str:
    """Writes the figure and its numbers: a curve a method, with its mode, and the floor of the real images.

    Returns:
        A Markdown table: mode, mean and median of each method.

    Raises:
        ValueError: if features are missing.
    """
    sets = _features.read(outcomes, artefacts, extractor=extractor, against=against)
    rows = [row for images in sets for row in _rows.distances(images) if row["metric"] in ("fid", "fid_floor")]
    _page.table(rows, outcomes, artefacts, name=name)
    fids = {method: np.array(list(places.values())) for method, places in _rows.values(rows, "fid").items()}
    floor = [value for places in _rows.values(rows, "fid_floor").values() for value in places.values()]
    measured = np.concatenate([*fids.values(), floor])
    margin = 0.3 * (measured.max() - measured.min()) or 1.0
    grid = np.linspace(max(0.0, measured.min() - margin), measured.max() + margin, _POINTS)
    lines = ["| per-class FID | mode | mean | median | classes |", "|---|---|---|---|---|"]
    with _page.style():
        figure = _page.page()
        axes = figure.add_subplot()
        for number, (method, values) in enumerate(fids.items()):
            curve, colour = density(values, grid), _page.COLOURS[number % len(_page.COLOURS)]
            mode = grid[curve.argmax()]
            dashes = _page.STYLES[number % len(_page.STYLES)]
            axes.plot(grid, curve, dashes, color=colour, label=f"{method} (mode {mode:.3g})")
            axes.fill_between(grid, curve, color=colour, alpha=0.15, linewidth=0)
            heights = np.full(len(values), 0.02 + 0.03 * number)
            axes.plot(values, heights, "|", color=colour, markersize=5, transform=axes.get_xaxis_transform())
            lines.append(f"| {method} | {mode:.4g} | {values.mean():.4g} | {np.median(values):.4g} | {len(values)} |")
        if floor:
            axes.axvline(float(np.mean(floor)), color="#767676", linestyle=":", label="real to real (mean)")
            lines.append(f"| real to real | | {np.mean(floor):.4g} | {np.median(floor):.4g} | {len(floor)} |")
        axes.set(xlabel="FID of a class's drawn images to its real ones", ylabel="density over classes", ylim=(0, None))
        _page.legend(figure)
        _page.save(figure, artefacts, name=name)
    return "\n".join(lines) + "\n"


def density(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Gaussian kernel density of (n,) values at (m,) points, with Scott's bandwidth.

    For equal values, or a single one, a normal density with a deviation of a twentieth of the grid.
    """
    if len(values) > 1 and values.std() > 1e-9 * abs(values).max():
        return gaussian_kde(values)(grid)
    return norm.pdf(grid, values[0], 0.05 * (grid[-1] - grid[0]))
