"""Checks of the files of features, recognised classes, figures and rehearsals; `bob.commands.checks` has the others."""

from collections.abc import Iterator

import numpy as np

from bob.commands import rehearsed
from bob.commands.snapshot import StoreSnapshot, check_ids, check_key_of, check_unique, rejected
from bob.store import schema

__all__ = ["features", "measured", "page", "recognised", "rehearsal"]


def features(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each image has features, of one width and finite."""
    table, origin = snapshot.table(path, schema.FEATURES)
    config, ids = origin["config"], table["id"].to_pylist() + rejected(snapshot, path)
    if "shots" in config:
        yield from check_ids([shot["image_id"] for shot in config["shots"]], ids)
    elif config["images"] in snapshot.files:
        drawn = snapshot.table(config["images"], schema.IMAGES)[0]["request_id"].to_pylist()
        yield from check_ids(drawn, ids)
    column = table["features"].combine_chunks()
    if len(set(column.value_lengths().to_pylist())) > 1:
        yield "holds features of several widths"
    if not np.isfinite(column.flatten().to_numpy()).all():
        yield "holds values that are not finite"
    yield from check_key_of(path, *config["inputs"])


def recognised(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each image of the unit has a recognised class or a rejection."""
    table, origin = snapshot.table(path, schema.RECOGNISED)
    expected = [shot["image_id"] for shot in origin["config"]["shots"]]
    yield from check_ids(expected, table["image_id"].to_pylist() + rejected(snapshot, path))
    yield from check_key_of(path, *origin["config"]["inputs"])


def measured(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that the numbers of a figure are listed once each."""
    table, _ = snapshot.table(path, schema.METRICS)
    yield from check_unique([str(list(row.values())) for row in table.drop_columns(["value", "n"]).to_pylist()])


def page(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that a PDF or SVG file is not truncated."""
    data = snapshot.artefacts.read(path).strip()
    begin, end = (b"%PDF-", b"%%EOF") if path.endswith(".pdf") else (b"<?xml", b"</svg>")
    if not (data.startswith(begin) and data.endswith(end)):
        yield "is not whole"


def rehearsal(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that a rehearsal can be read and has a positive rate."""
    if not rehearsed.read(path, snapshot.artefacts).per_second > 0:
        yield "has no positive rate"
