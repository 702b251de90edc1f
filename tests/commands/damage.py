"""Damages to the files of a tiny run, each with the problem that `bob verify` is to report."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from bob.diffusion import lora
from bob.store import Store

PART, REQUESTS = "images/*/part-00001.parquet", "images/*/requests.parquet"
WEIGHTS, MANIFEST = f"adapters/*/{lora.FILE}", "adapters/*/manifest.json"
SHOTS, CAPTIONS, PLAN = "shots/*.parquet", "captions/*.parquet", "plans/*-generate.parquet"
SWEEP, FINAL = "results/*/sweep-000.parquet", "results/*/final.parquet"


def find(artefacts: Store, pattern: str) -> Path:
    return min(Path(artefacts.root).glob(pattern))


def path_of(artefacts: Store, file: Path) -> str:
    return file.relative_to(artefacts.root).as_posix()


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """A Parquet file that is whole again, with other content."""

    def damage(file: Path) -> None:
        table = pq.read_table(file)
        pq.write_table(change(table), file)

    return damage


def column(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another value in the first row of a column."""

    def changed(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[0] = change(values[0])
        index = table.schema.get_field_index(name)
        return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return rewritten(changed)


def forged(file: Path) -> None:
    """Bytes that are no picture, with their right SHA-1."""
    column("image", lambda _: b"no picture")(file)
    column("sha1", lambda _: hashlib.sha1(b"no picture").hexdigest())(file)


def flipped(file: Path) -> None:
    """One bit inside an image, as it lies on the disk."""
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 1
    file.write_bytes(data)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        held = {name: tensor.copy() for name, tensor in safetensors.numpy.load(file.read_bytes()).items()}
        change(held)
        file.write_bytes(safetensors.numpy.save(held))

    return damage


def noted(**changes: Any) -> Callable[[Path], None]:
    """Other values in the config of an adapter's manifest."""

    def damage(file: Path) -> None:
        found = json.loads(file.read_text())
        file.write_text(json.dumps(found | {"config": found["config"] | changes}))

    return damage


def first_of(held: dict[str, np.ndarray]) -> np.ndarray:
    return held[min(held)]


def _wider(columns: pa.Schema) -> pa.Schema:
    index = columns.get_field_index("width")
    return columns.set(index, columns.field(index).with_type(pa.int64()))


NO_PARQUET = "is no whole Parquet file"

DAMAGES = {
    "shard truncated": (PART, truncated, NO_PARQUET),
    "shard empty": (PART, emptied, NO_PARQUET),
    "bit flipped in an image": (PART, flipped, "is no whole Parquet file .*CRC"),
    "image changed": (PART, column("image", lambda image: image[:-9] + bytes(9)), "SHA-1 is another than stated: 1-1$"),
    "image is none": (PART, forged, "holds images that cannot be decoded: 1-1$"),
    "width differs": (PART, column("width", lambda width: width + 1), "another format or size than stated: 1-1$"),
    "row dropped": (PART, rewritten(lambda t: t.slice(1)), "lacks 1-1: neither there nor rejected"),
    "all rows dropped": (PART, rewritten(lambda t: t.slice(0, 0)), "lacks 1-1, 1-2, 1-3 and 2 more: neither"),
    "row twice": (PART, rewritten(lambda t: pa.concat_tables([t, t.slice(2, 1)])), "holds 1-3 more than once"),
    "row of another": (PART, column("request_id", lambda _: "2-3"), "lacks 1-1: .*|holds 2-3, which it should not"),
    "another order": (PART, rewritten(lambda t: t.take([1, 0, 2, 3, 4])), "are not those of the request table"),
    "prompt changed": (PART, column("prompt", str.upper), "are not those of the request table"),
    "column lost": (
        PART,
        rewritten(lambda t: t.drop_columns(["seed"])),
        r"is no table of its kind \(missing, unknown or repeated columns: \['seed'\]\)$",
    ),
    "other type": (
        PART,
        rewritten(lambda t: t.cast(_wider(t.schema))),
        r"of its kind \(column 'width' holds int64, wanted int32\)$",
    ),
    "manifest lost": (
        PART,
        rewritten(pa.Table.replace_schema_metadata),
        "its manifest is missing or cannot be read",
    ),
    "no parquet": (PART, lambda file: file.write_text("hello"), NO_PARQUET),
    "request changed": (REQUESTS, column("seed", lambda seed: seed + 1), "has the key .*, not that of its name"),
    "request lost": (REQUESTS, rewritten(lambda t: t.slice(1)), "has the key"),
    "request twice": (
        REQUESTS,
        rewritten(lambda t: pa.concat_tables([t, t.slice(3, 1)])),
        "does not rise in class and index at 0-3$|has the key",
    ),
    "request truncated": (REQUESTS, truncated, NO_PARQUET),
    "adapter with NaN": (WEIGHTS, tensors(lambda held: first_of(held).fill(np.nan)), "values that are not finite in "),
    "adapter changed": (WEIGHTS, tensors(lambda held: first_of(held).fill(0)), "SHA-256 differs from the manifest's"),
    "adapter of nothing": (WEIGHTS, tensors(dict.clear), "holds no tensors|SHA-256 differs"),
    "adapter truncated": (WEIGHTS, truncated, "is no whole safetensors file"),
    "adapter empty": (WEIGHTS, emptied, "is no whole safetensors file"),
    "adapter lost": (WEIGHTS, Path.unlink, "is missing"),
    "adapter's manifest empty": (MANIFEST, emptied, "its manifest is missing or cannot be read"),
    "adapter's manifest lost": (MANIFEST, Path.unlink, "is missing"),
    "adapter of another": (MANIFEST, noted(inputs=[1, "x"]), "has the key"),
    "shot changed": (SHOTS, column("sha1", lambda sha1: sha1[::-1]), "has the key"),
    "shot twice": (SHOTS, rewritten(lambda t: pa.concat_tables([t, t.slice(0, 1)])), "more than once|has the key"),
    "caption lost": (CAPTIONS, rewritten(lambda t: t.slice(1)), "lacks .*: neither there nor rejected"),
    "caption table empty": (CAPTIONS, emptied, NO_PARQUET),
    "epoch lost": (FINAL, rewritten(lambda t: t.slice(3)), "does not hold each of its 2 epochs"),
    "epoch twice": (FINAL, rewritten(lambda t: pa.concat_tables([t, t.slice(0, 1)])), "holds epoch 1 train loss more"),
    "result of another run": (SWEEP, column("run", lambda _: "0" * 16), "are not those of the sweep of run"),
    "result truncated": (SWEEP, truncated, NO_PARQUET),
    "table truncated": ("tables/tiny.parquet", truncated, NO_PARQUET),
    "table empty": ("tables/tiny.md", emptied, "is empty"),
    "picture truncated": ("tables/*.png", truncated, "cannot be decoded"),
    "plan truncated": (PLAN, truncated, NO_PARQUET),
    "plan with a unit twice": (
        PLAN,
        rewritten(lambda t: pa.concat_tables([t, t])),
        "holds .* more than once",
    ),
}
"""What happened -> (the file, what was done to it, what is said of it)."""
