"""Checks of the files in a store, one function for each kind of file. A check yields faults, in words.

A check raises `ValueError` if the file cannot be read, and `KeyError` if its manifest lacks a field.
"""

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.numpy
from PIL import Image
from safetensors import SafetensorError

from bob import store
from bob.commands.snapshot import (
    StoreSnapshot,
    check_ids,
    check_key,
    check_key_of,
    check_unique,
    first_few,
    key,
    prefix_errors,
    rejected,
)
from bob.store import parquet, schema, tables

__all__ = [
    "captions",
    "manifest",
    "part",
    "picture",
    "plan",
    "quarantine",
    "requests",
    "results",
    "scores",
    "shots",
    "stray",
    "tabulated",
    "text",
    "weights",
]


def shots(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each image is listed once, and that the rows have the key in the file's name."""
    table, origin = snapshot.table(path, schema.SHOTS)
    yield from check_unique(table["image_id"].to_pylist())
    if "class_names" in origin["config"]:
        rows = [list(row.values()) for row in table.select(["image_id", "sha1", "class_id", "split"]).to_pylist()]
        yield from check_key_of(path, rows, origin["config"]["class_names"])


def captions(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each shot of the unit has a caption or a rejection."""
    table, origin = snapshot.table(path, schema.CAPTIONS)
    expected = [shot["image_id"] for shot in origin["config"]["shots"]]
    yield from check_ids(expected, table["image_id"].to_pylist() + rejected(snapshot, path))
    yield from _inputs(path, origin["config"])


def manifest(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that an adapter's manifest is readable and belongs to this adapter."""
    yield from _inputs(path, snapshot.artefacts.manifest(path)["config"])


def weights(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that an adapter's tensors are finite, and its bytes those that were saved."""
    data = snapshot.artefacts.read(path)
    try:
        tensors = safetensors.numpy.load(data)
    except SafetensorError as error:
        raise ValueError(f"is no whole safetensors file ({error})") from error
    infinite = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not tensors:
        yield "holds no tensors"
    if infinite:
        yield f"holds values that are not finite in {first_few(infinite)}"
        return
    folder, _, name = path.rpartition("/")
    saved = _saved(snapshot, f"{folder}/manifest.json", name)
    if saved and saved != hashlib.sha256(data).hexdigest():
        yield "its bytes are not those that were saved: their SHA-256 differs from the manifest's"


def _saved(snapshot: StoreSnapshot, manifest_path: str, name: str) -> str | None:
    """Returns a file's SHA-256 in an adapter's manifest; None if the manifest, which has its own check, is unusable."""
    try:
        digests = snapshot.artefacts.manifest(manifest_path).get("sha256")
        return digests.get(name) if isinstance(digests, dict) else digests  # earlier versions saved one file
    except (ValueError, OSError):
        return None


def requests(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each request occurs once, in order, and that the rows have the key in the folder's name."""
    groups, faults = snapshot.groups(path), list[str]()
    origin = parquet.manifest(groups.columns)
    actual = store.key_of_rows(origin.get("inputs", []), _in_order(groups, faults))
    yield from faults
    if "inputs" in origin:
        yield from check_key(path, actual)
    _unit(origin)


def _in_order(groups: parquet.Groups, faults: list[str]) -> Iterator[pa.Table]:
    """Passes requests on, and adds a fault for the first that does not follow its predecessor, as a repeated one."""
    previous = (-1, -1)
    for rows in _readable(groups):
        with prefix_errors("is no table of its kind"):
            fitted = tables.fit(rows, schema.REQUESTS)
        for position in zip(fitted["class_id"].to_pylist(), fitted["index"].to_pylist(), strict=True):
            if position <= previous and not faults:
                faults.append(f"does not rise in class and index at {position[0]}-{position[1]}")
            previous = position
        yield fitted


def _readable(groups: parquet.Groups) -> Iterator[pa.Table]:
    with prefix_errors("is no whole Parquet file"):
        yield from groups


def part(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that pictures decode, and that each request of the shard has either a picture or a rejection."""
    table, _ = snapshot.table(path, schema.IMAGES)
    yield from _pictures(table)
    folder, _, name = path.rpartition("/")
    requested = _requests(snapshot, f"{folder}/requests.parquet")
    if requested is None:
        return
    groups, unit = requested
    number = int(name.removeprefix("part-").removesuffix(".parquet"))
    expected = tables.fit(groups.slice(unit * number, unit), schema.REQUESTS)
    drawn = table["request_id"].to_pylist()
    faults = list(check_ids(expected["request_id"].to_pylist(), drawn + rejected(snapshot, path)))
    yield from faults
    if not faults:
        drawn_set = set(drawn)
        expected = expected.filter(pa.array([name in drawn_set for name in expected["request_id"].to_pylist()]))
        if not table.select(schema.REQUESTS.names).equals(expected):
            yield "its rows are not those of the request table: another order, or a prompt, seed or label that differs"


@functools.lru_cache(maxsize=1)  # the shards of a folder are checked in sequence
def _requests(snapshot: StoreSnapshot, path: str) -> tuple[parquet.Groups, int] | None:
    """Returns the request table and the rows of a shard; None if the table, which has its own check, has a fault."""
    try:
        if any(requests(snapshot, path)):
            return None
        groups = snapshot.groups(path)
        return groups, _unit(parquet.manifest(groups.columns))
    except (ValueError, OSError, KeyError, TypeError):
        return None


def _unit(origin: Mapping[str, Any]) -> int:
    return origin["config"]["draw"]["unit"]


def stray(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Reports a file that no unit wrote but the classifier would train on."""
    yield "is no shard by its name, but is read as one"


def scores(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each picture of the shard has a score."""
    table, _ = snapshot.table(path, schema.SCORES)
    folder, _, name = path.rpartition("/")
    shard = f"{folder}/{name.replace('scores-', 'part-', 1)}"
    if shard in snapshot.files:
        drawn = snapshot.table(shard, schema.IMAGES)[0]["request_id"].to_pylist()
        yield from check_ids(drawn, table["request_id"].to_pylist())


def quarantine(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that a `rejected` file is readable; its ids are checked with the unit's file."""
    snapshot.table(path, schema.REJECTED)
    yield from ()


def results(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that one training has all its epochs, and rows of the run that the folder's name identifies."""
    table, origin = snapshot.table(path, schema.RESULTS)
    config, name = origin["config"], path.rpartition("/")[2]
    yield from _inputs(path, config)
    phase = "final" if name == "final.parquet" else "sweep"
    if set(table["run"].to_pylist()) != {key(path)} or set(table["phase"].to_pylist()) != {phase}:
        yield f"its rows are not those of the {phase} of run {key(path)}"
    rows = table.select(["epoch", "split", "metric", "value"]).to_pylist()
    yield from check_unique([f"epoch {row['epoch']} {row['split']} {row['metric']}" for row in rows])
    losses = {row["epoch"]: row["value"] for row in rows if (row["split"], row["metric"]) == ("train", "loss")}
    epochs = config["sweep"][f"{phase}_epochs"]
    # A training ends with a loss that is NaN, and early where the search may stop it.
    ended = any(value != value for value in losses.values()) or config["sweep"].get("search") == "asha"
    if set(losses) != set(range(1, (max(losses) if ended else epochs) + 1)):
        yield f"does not hold each of its {epochs} epochs"


def tabulated(snapshot: StoreSnapshot, path: str, kind: pa.Schema = schema.TABLES) -> Iterator[str]:
    """Checks a table of step 5."""
    snapshot.table(path, kind)
    yield from ()


def text(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that a text file is not empty."""
    if not snapshot.artefacts.read(path).decode().strip():
        yield "is empty"


def picture(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that a picture of step 5 decodes."""
    if _decoded(snapshot.artefacts.read(path)) is None:
        yield "cannot be decoded"


def plan(snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    """Checks that each unit is listed once, and that the runs have the key in the file's name."""
    table, origin = snapshot.table(path, schema.PLAN)
    yield from check_unique(table["target"].to_pylist())
    yield from check_key_of(path, origin["config"])


def _inputs(path: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Checks the key of the inputs, which manifests of earlier versions lack."""
    if "inputs" in config:
        yield from check_key_of(path, *config["inputs"])


def _pictures(table: pa.Table) -> Iterator[str]:
    ids: dict[str, list[str]] = {}
    columns = table.select(["request_id", "image", "sha1", "format", "width", "height"])
    for batch in columns.to_batches():
        for row in batch.to_pylist():
            fault = _fault(row)
            if fault:
                ids.setdefault(fault, []).append(row["request_id"])
    for fault, names in ids.items():
        yield f"{fault}: {first_few(names)}"


def _fault(row: Mapping[str, Any]) -> str:
    if hashlib.sha1(row["image"], usedforsecurity=False).hexdigest() != row["sha1"]:
        return "holds images whose SHA-1 is another than stated"
    decoded = _decoded(row["image"])
    if decoded is None:
        return "holds images that cannot be decoded"
    stated = (row["format"], row["width"], row["height"])
    return "" if decoded == stated else "holds images of another format or size than stated"


def _decoded(image: bytes) -> tuple[str, int, int] | None:
    """Returns format, width and height in pixels of a picture; None if it cannot be decoded in full."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            picture.load()
            return (picture.format or "").lower(), picture.width, picture.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
