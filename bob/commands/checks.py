"""What each kind of file in a store has to be. One function a kind; it yields what is wrong, in words.

A check raises `ValueError` where nothing more can be read, and `KeyError` where the manifest lacks something.
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
from bob.commands.snapshot import StoreSnapshot, key, keyed, match, once, rejected, same, some, words
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


def shots(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Each image once, and those that the key in the name stands for."""
    table, origin = held.table(path, schema.SHOTS)
    yield from once(table["image_id"].to_pylist())
    if "class_names" in origin["config"]:
        rows = [list(row.values()) for row in table.select(["image_id", "sha1", "class_id", "split"]).to_pylist()]
        yield from keyed(path, rows, origin["config"]["class_names"])


def captions(held: StoreSnapshot, path: str) -> Iterator[str]:
    """A caption for each shot of the unit."""
    table, origin = held.table(path, schema.CAPTIONS)
    wanted = [shot["image_id"] for shot in origin["config"]["shots"]]
    yield from match(wanted, table["image_id"].to_pylist() + rejected(held, path))
    yield from _inputs(path, origin["config"])


def manifest(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Of an adapter: readable, and of this adapter."""
    yield from _inputs(path, held.artefacts.manifest(path)["config"])


def weights(held: StoreSnapshot, path: str) -> Iterator[str]:
    """An adapter's tensors: finite, and those that were saved."""
    data = held.artefacts.read(path)
    try:
        tensors = safetensors.numpy.load(data)
    except SafetensorError as error:
        raise ValueError(f"is no whole safetensors file ({error})") from error
    wild = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not tensors:
        yield "holds no tensors"
    if wild:
        yield f"holds values that are not finite in {some(wild)}"
        return
    folder, _, name = path.rpartition("/")
    saved = _saved(held, f"{folder}/manifest.json", name)
    if saved and saved != hashlib.sha256(data).hexdigest():
        yield "its bytes are not those that were saved: their SHA-256 differs from the manifest's"


def _saved(held: StoreSnapshot, beside: str, name: str) -> str | None:
    """A file's SHA-256 in an adapter's manifest, if that is there and fit for use, which is named apart."""
    try:
        noted = held.artefacts.manifest(beside).get("sha256")
        return noted.get(name) if isinstance(noted, dict) else noted  # earlier versions made one file
    except (ValueError, OSError):
        return None


def requests(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Each request once, in order, and those that the key in the folder's name stands for."""
    asked, faults = held.groups(path), list[str]()
    origin = parquet.manifest(asked.columns)
    found = store.key_of_rows(origin.get("inputs", []), _in_order(asked, faults))
    yield from faults
    if "inputs" in origin:
        yield from same(path, found)
    _unit(origin)


def _in_order(asked: parquet.Groups, faults: list[str]) -> Iterator[pa.Table]:
    """Passes requests on, and notes the first that does not come after the one before: it may be there twice."""
    before = (-1, -1)
    for rows in _whole(asked):
        with words("is no table of its kind"):
            fitted = tables.fit(rows, schema.REQUESTS)
        for place in zip(fitted["class_id"].to_pylist(), fitted["index"].to_pylist(), strict=True):
            if place <= before and not faults:
                faults.append(f"does not rise in class and index at {place[0]}-{place[1]}")
            before = place
        yield fitted


def _whole(asked: parquet.Groups) -> Iterator[pa.Table]:
    with words("is no whole Parquet file"):
        yield from asked


def part(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Pictures that decode, and of each request of the shard's slice either a picture or a rejection."""
    table, _ = held.table(path, schema.IMAGES)
    yield from _pictures(table)
    folder, _, name = path.rpartition("/")
    asked = _requests(held, f"{folder}/requests.parquet")
    if asked is None:
        return
    whole, unit = asked
    number = int(name.removeprefix("part-").removesuffix(".parquet"))
    wanted = tables.fit(whole.slice(unit * number, unit), schema.REQUESTS)
    drawn = table["request_id"].to_pylist()
    faults = list(match(wanted["request_id"].to_pylist(), drawn + rejected(held, path)))
    yield from faults
    if not faults:
        pictured = set(drawn)
        asked_for = wanted.filter(pa.array([name in pictured for name in wanted["request_id"].to_pylist()]))
        if not table.select(schema.REQUESTS.names).equals(asked_for):
            yield "its rows are not those of the request table: another order, or a prompt, seed or label that differs"


@functools.lru_cache(maxsize=1)  # the shards of a folder come one after another
def _requests(held: StoreSnapshot, path: str) -> tuple[parquet.Groups, int] | None:
    """The request table and how many of its rows a shard holds; None if it has a fault, which is named apart."""
    try:
        if any(requests(held, path)):
            return None
        asked = held.groups(path)
        return asked, _unit(parquet.manifest(asked.columns))
    except (ValueError, OSError, KeyError, TypeError):
        return None


def _unit(origin: Mapping[str, Any]) -> int:
    return origin["config"]["draw"]["unit"]


def stray(held: StoreSnapshot, path: str) -> Iterator[str]:
    """What the classifier would train on, though no unit made it."""
    yield "is no shard by its name, but is read as one"


def scores(held: StoreSnapshot, path: str) -> Iterator[str]:
    """A score for each picture of the shard beside it."""
    table, _ = held.table(path, schema.SCORES)
    folder, _, name = path.rpartition("/")
    beside = f"{folder}/{name.replace('scores-', 'part-', 1)}"
    if beside in held.files:
        drawn = held.table(beside, schema.IMAGES)[0]["request_id"].to_pylist()
        yield from match(drawn, table["request_id"].to_pylist())


def quarantine(held: StoreSnapshot, path: str) -> Iterator[str]:
    """What was rejected; whether of the right rows is looked at with the file beside it."""
    held.table(path, schema.REJECTED)
    yield from ()


def results(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Every epoch of one training, of the run that the folder's name stands for."""
    table, origin = held.table(path, schema.RESULTS)
    config, name = origin["config"], path.rpartition("/")[2]
    yield from _inputs(path, config)
    phase = "final" if name == "final.parquet" else "sweep"
    if set(table["run"].to_pylist()) != {key(path)} or set(table["phase"].to_pylist()) != {phase}:
        yield f"its rows are not those of the {phase} of run {key(path)}"
    rows = table.select(["epoch", "split", "metric", "value"]).to_pylist()
    yield from once([f"epoch {row['epoch']} {row['split']} {row['metric']}" for row in rows])
    losses = {row["epoch"]: row["value"] for row in rows if (row["split"], row["metric"]) == ("train", "loss")}
    epochs = config["sweep"][f"{phase}_epochs"]
    # A training ends with a loss that is NaN, and early where the search may stop it.
    ended = any(value != value for value in losses.values()) or config["sweep"].get("search") == "asha"
    if set(losses) != set(range(1, (max(losses) if ended else epochs) + 1)):
        yield f"does not hold each of its {epochs} epochs"


def tabulated(held: StoreSnapshot, path: str, kind: pa.Schema = schema.TABLES) -> Iterator[str]:
    """A table of step 5."""
    held.table(path, kind)
    yield from ()


def text(held: StoreSnapshot, path: str) -> Iterator[str]:
    """A table for people."""
    if not held.artefacts.read(path).decode().strip():
        yield "is empty"


def picture(held: StoreSnapshot, path: str) -> Iterator[str]:
    """A picture of step 5."""
    if _decoded(held.artefacts.read(path)) is None:
        yield "cannot be decoded"


def plan(held: StoreSnapshot, path: str) -> Iterator[str]:
    """Each unit once, and the runs that the key in the name stands for."""
    table, origin = held.table(path, schema.PLAN)
    yield from once(table["target"].to_pylist())
    yield from keyed(path, origin["config"])


def _inputs(path: str, noted: Mapping[str, Any]) -> Iterator[str]:
    """Manifests of earlier versions do not note what the key is the hash of."""
    if "inputs" in noted:
        yield from keyed(path, *noted["inputs"])


def _pictures(table: pa.Table) -> Iterator[str]:
    wrong: dict[str, list[str]] = {}
    columns = table.select(["request_id", "image", "sha1", "format", "width", "height"])
    for batch in columns.to_batches():
        for row in batch.to_pylist():
            fault = _fault(row)
            if fault:
                wrong.setdefault(fault, []).append(row["request_id"])
    for fault, names in wrong.items():
        yield f"{fault}: {some(names)}"


def _fault(row: Mapping[str, Any]) -> str:
    if hashlib.sha1(row["image"], usedforsecurity=False).hexdigest() != row["sha1"]:
        return "holds images whose SHA-1 is another than stated"
    found = _decoded(row["image"])
    if found is None:
        return "holds images that cannot be decoded"
    stated = (row["format"], row["width"], row["height"])
    return "" if found == stated else "holds images of another format or size than stated"


def _decoded(image: bytes) -> tuple[str, int, int] | None:
    """Format, width and height in pixels of a picture all of which can be read."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            picture.load()
            return (picture.format or "").lower(), picture.width, picture.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
