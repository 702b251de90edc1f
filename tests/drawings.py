"""Stores filled with made-up images, for tests of code that only reads them."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bob import datasets
from bob import store as stores
from bob.core.settings import DrawSettings, Run
from bob.core.types import Request, Shot
from bob.store import schema, tables

Paint = Callable[[int, int], Image.Image]
"""(class id, index) -> the picture."""


def noise(side: int = 24) -> Paint:
    """Another picture for each class and index."""

    def paint(class_id: int, index: int) -> Image.Image:
        pixels = np.random.default_rng([class_id, index]).integers(0, 256, (side, side, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return paint


def listed(root: Path, classes: Sequence[str], *, each: int = 4) -> str:
    """A data set of noise, whose classes may be called anything: the name that `datasets.load` takes."""
    root.mkdir(parents=True)
    lines = ["path,label"]
    for k, name in enumerate(classes):
        for n in range(each):
            noise(8)(100 + k, n).save(root / f"{k}-{n}.png")
            quoted = name.replace('"', '""')
            lines.append(f'{k}-{n}.png,"{quoted}"')
    (root / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"folder:{root}/list.csv"


def run(dataset: str, **changes: Any) -> Run:
    """BOB with skyworld's checkpoint, one image of each class, three to a shard."""
    plain: dict[str, Any] = {"method": "bob", "checkpoint": "skyworld", "shots": 2, "val": 1}
    return Run(**plain | {"dataset": dataset, "draw": DrawSettings(per_class=1, unit=3)} | changes)


def split(artefacts: stores.Store, of: Run) -> tuple[str, tuple[Shot, ...]]:
    """Writes the table of a run's shots, as step 0 does: its path and the shots."""
    dataset = datasets.load(of.dataset)
    shots = dataset.split(shots=of.shots, val=of.val, seed=of.seed)
    path = f"shots/{stores.slug(dataset.name)}-{of.setting}-{stores.key(dataset.name, of.seed)}.parquet"
    origin = {"dataset": dataset.name, "seed": of.seed, "class_names": dataset.class_names}
    rows = [dataclasses.asdict(shot) for shot in shots]
    artefacts.write_table(path, tables.from_rows(rows, schema.SHOTS), stores.provenance(origin))
    return path, shots


def draw(artefacts: stores.Store, of: Run, *, paint: Paint | None = None, **request: Any) -> str:
    """Writes the requests and images of a run, as step 3 does: their folder.

    Args:
        artefacts: where to.
        of: `draw.per_class` images of each class, `draw.unit` to a shard.
        paint: the pictures.
        request: fields of all requests; texts may name `{name}` and `{index}`; `source_ids` of True: a shot of it.
    """
    path, shots = split(artefacts, of)
    train = [shot for shot in shots if shot.split == "train"]
    names = datasets.load(of.dataset).class_names
    requests = []
    for k, name in enumerate(names):
        for n in range(of.draw.per_class):
            said: dict[str, Any] = {"prompt": "a photo of a {name}", "background": "", "pose": ""}
            said |= {"label_ids": (k,), "label_weights": (1.0,)} | request
            said |= {w: said[w].format(name=name, index=n) for w in ("prompt", "background", "pose")}
            if said.pop("source_ids", False):
                said["source_ids"] = (next(shot.image_id for shot in train if shot.class_id == k),)
            identity: dict[str, Any] = {
                "request_id": f"{k}-{n}",
                "class_id": k,
                "index": n,
                "seed": 2**62 + 100 * k + n,
            }
            requests.append(Request(**identity, **said))
    folder = f"images/{stores.slug(f'x {of.method}')}-{of.setting}-{stores.key(of)}"
    rows = [dataclasses.asdict(each) for each in requests]
    origin = stores.provenance(of) | {"inputs": [], "split": path}
    artefacts.write_table(f"{folder}/requests.parquet", tables.from_rows(rows, schema.REQUESTS), origin)
    for number, start in enumerate(range(0, len(rows), of.draw.unit)):
        drawn = [_drawn(row, of, paint or noise()) for row in rows[start : start + of.draw.unit]]
        table = tables.from_rows(drawn, schema.IMAGES)
        artefacts.write_table(f"{folder}/part-{number:05d}.parquet", table, stores.provenance(of))
    return folder


def _drawn(row: dict[str, Any], of: Run, paint: Paint) -> dict[str, Any]:
    picture, buffer = paint(row["class_id"], row["index"]), io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    image = buffer.getvalue()
    return row | {
        "image": image,
        "format": "png",
        "width": picture.width,
        "height": picture.height,
        "sha1": hashlib.sha1(image, usedforsecurity=False).hexdigest(),
        "checkpoint": of.checkpoint,
        "seconds": 0.1,
    }
