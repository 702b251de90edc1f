"""Checks of the files that measures and figures leave, as `bob.commands.checks` has those of the steps."""

from collections.abc import Iterator

import numpy as np

from bob.commands.snapshot import StoreSnapshot, keyed, match, once, rejected
from bob.store import schema

__all__ = ["features", "measured", "page", "recognised"]


def features(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Of each image of the unit as many numbers, all finite."""
    table, origin = held.table(path, schema.FEATURES)
    config, found = origin["config"], table["id"].to_pylist() + rejected(held, path)
    if "shots" in config:
        yield from match([shot["image_id"] for shot in config["shots"]], found)
    elif config["images"] in held.files:
        drawn = held.table(config["images"], schema.IMAGES)[0]["request_id"].to_pylist()
        yield from match(drawn, found)
    column = table["features"].combine_chunks()
    if len(set(column.value_lengths().to_pylist())) > 1:
        yield "holds features of several widths"
    if not np.isfinite(column.flatten().to_numpy()).all():
        yield "holds values that are not finite"
    yield from keyed(path, *config["inputs"])


def recognised(held: StoreSnapshot, path: str) -> Iterator[str]:
    """A guess for each image of the unit."""
    table, origin = held.table(path, schema.RECOGNISED)
    wanted = [shot["image_id"] for shot in origin["config"]["shots"]]
    yield from match(wanted, table["image_id"].to_pylist() + rejected(held, path))
    yield from keyed(path, *origin["config"]["inputs"])


def measured(held: StoreSnapshot, path: str) -> Iterator[str]:
    """The numbers of a figure."""
    table, _ = held.table(path, schema.METRICS)
    yield from once([str(list(row.values())) for row in table.drop_columns(["value", "n"]).to_pylist()])


def page(held: StoreSnapshot, path: str) -> Iterator[str]:
    """A figure as PDF or SVG."""
    data = held.artefacts.read(path).strip()
    begin, end = (b"%PDF-", b"%%EOF") if path.endswith(".pdf") else (b"<?xml", b"</svg>")
    if not (data.startswith(begin) and data.endswith(end)):
        yield "is not whole"
