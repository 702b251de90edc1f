"""Figure 3: real images of one class and the images of each method."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from bob import datasets, store
from bob.core import registry
from bob.core.types import Outcome, Unit
from bob.paper.figures import _page
from bob.store.images import read_images

__all__ = ["class_id", "draw", "units"]

_CLASS = "737-400"
"""The class that the paper's figure shows, an Aircraft variant."""

_SIDE = 192  # pixels of a picture in the figure: small ones are enlarged by whole factors, large ones reduced


def units(outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
    """No units: the figure needs no computation."""
    return []


def class_id(dataset: datasets.Dataset, class_name: str = "") -> int:
    """Returns the id of the class to show: the named one, else the paper's, else the first.

    Raises:
        ValueError: if there is no such class; lists the known classes and the nearest.
    """
    names = dataset.class_names
    if not class_name:
        return names.index(_CLASS) if _CLASS in names else 0
    if class_name not in names:
        raise ValueError(registry.unknown("class", class_name, names))
    return names.index(class_name)


def draw(
    outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str, class_name: str = "", columns: int = 6
) -> str:
    """Writes the figure: a row of real shots, and one for each method of the first data set, setting and seed.

    Each row shows the first images, not selected ones. The figure has no numbers, so it has no table.

    Args:
        outcomes: outcomes of runs that have images.
        artefacts: store of the outcomes.
        name: name of the figure.
        class_name: class to show; empty: the paper's 737-400, or the first where there is no such class.
        columns: pictures per row.

    Returns:
        Markdown list of the images shown.

    Raises:
        ValueError: as `class_id` does.
    """
    shown = [outcome for outcome in outcomes if outcome.split == outcomes[0].split and outcome.images]
    dataset = datasets.load(outcomes[0].run.dataset, outcomes[0].run.descriptor)
    chosen = class_id(dataset, class_name)
    class_name = dataset.class_names[chosen]
    shots = [shot for shot in outcomes[0].shots if shot.class_id == chosen][:columns]
    rows = {"real shots": [dataset.open(shot) for shot in shots]}
    lines = [f"- real shots: {', '.join(shot.image_id for shot in shots)}"]
    several = len({outcome.run.checkpoint for outcome in shown}) > 1
    for outcome in shown:
        title = f"{outcome.run.method}\n{outcome.run.checkpoint}" if several else outcome.run.method
        images = read_images(
            artefacts, outcome.images, shard=lambda table: table.filter(pc.field("class_id") == chosen)
        ).slice(0, columns)
        rows[title] = [Image.open(io.BytesIO(image)) for image in images["image"].to_pylist()]
        lines.append(f"- {title.replace(chr(10), ' ')}: {', '.join(images['request_id'].to_pylist())}")
    _grid(rows, artefacts, name=name, title=f"{class_name} ({outcomes[0].dataset})")
    return f"Images of class {class_name}:\n\n" + "\n".join(lines) + "\n"


def _grid(rows: dict[str, list[Image.Image]], artefacts: store.Store, *, name: str, title: str) -> None:
    columns = max(map(len, rows.values()))
    with _page.style():
        figure = _page.page(0.9 * columns + 0.9, 0.9 * len(rows) + 0.3)
        figure.suptitle(title, fontsize=10)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (row, pictures) in zip(grid, rows.items(), strict=True):
            for axes, picture in zip(line, [*pictures, *[None] * (columns - len(pictures))], strict=True):
                axes.set_axis_off()
                if picture is not None:
                    axes.imshow(_sized(picture), interpolation="none")
            line[0].text(-0.08, 0.5, row, ha="right", va="center", transform=line[0].transAxes)
        _page.save(figure, artefacts, name=name)


def _sized(picture: Image.Image) -> np.ndarray:
    """Returns uint8 (h, w, 3) with a longer side of about `_SIDE`."""
    picture, longer = picture.convert("RGB"), max(picture.size)
    if longer > _SIDE:
        picture.thumbnail((_SIDE, _SIDE))
        return np.asarray(picture)
    times = _SIDE // longer
    return np.asarray(picture).repeat(times, 0).repeat(times, 1)
