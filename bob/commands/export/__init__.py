"""`bob export`: writes a set of drawn images, marked as synthetic, in common formats.

    hf           Parquet with pictures and class names          datasets.load_dataset(FOLDER)
    imagefolder  CLASS/IMAGE.png and metadata.csv               torchvision's ImageFolder, datasets' imagefolder
    webdataset   tar shards: IMAGE.png, IMAGE.cls, IMAGE.json   webdataset, datasets' webdataset

Each has a data card, README.md, and names in each picture's metadata the model that drew it (paper, ethics statement).
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bob.commands import console
from bob.commands.export import card, hf, imagefolder, webdataset
from bob.commands.export.marks import mark
from bob.commands.export.public import model, public
from bob.core import registry
from bob.store import Store, files
from bob.store.images import ImageSet, Walk, find

__all__ = ["FORMATS", "ExportCommand", "Wanted", "choose", "write"]

FORMATS = {"hf": hf, "imagefolder": imagefolder, "webdataset": webdataset}
"""Value of `--to` -> module of that format: `write`, `CONFIG` for the card, and `LOAD`, the code that reads it."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Selection of a set of drawn images; an empty field matches any value."""

    dataset: str = ""
    method: str = ""
    checkpoint: str = ""
    """T2I checkpoint."""
    shots: int = 0
    """Training images per class."""
    seed: int | None = None
    key: str = ""
    """Last 16 digits of the set's folder; tells apart sets that agree in all other fields."""


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes one set of drawn images in a common format, marked as synthetic, with a data card.

    bob export out --method bob --to hf --into birds
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    to: Literal["hf", "imagefolder", "webdataset"]
    """hf: Parquet for `datasets.load_dataset`; imagefolder: CLASS/IMAGE.png; webdataset: tar shards."""
    into: str
    """Folder to write; must not exist, or be empty."""
    wanted: Annotated[Wanted, tyro.conf.arg(name="")]
    """Selection of the set, if there are several."""

    def main(self, arguments: Sequence[str]) -> int:
        """Writes the export and prints its size; returns the exit code."""
        artefacts = Store(self.out)
        image_set = choose(artefacts, self.wanted)
        number = write(image_set, to=self.to, into=self.into, walk=console.walk)
        print(f"{self.into}: {number:,} images of {artefacts.place(image_set.folder)}")
        return 0


def choose(artefacts: Store, wanted: Wanted) -> ImageSet:
    """Returns the only set of drawn images that fits.

    Raises:
        ValueError: if no set fits, or several do; the message lists the choices.
    """
    known = {image_set.folder: _coordinates(image_set) for image_set in find(artefacts)}
    if not known:
        raise ValueError(f"{artefacts.place()} holds no drawn images: name a folder that `bob run` has drawn into")
    fitting = dict(known)
    for name, value in asdict(wanted).items():
        if value in ("", None) or (name == "shots" and not value):
            continue
        values = dict.fromkeys(str(coordinates[name]) for coordinates in fitting.values())
        fitting = {folder: coordinates for folder, coordinates in fitting.items() if coordinates[name] == value}
        if not fitting:
            raise ValueError(registry.unknown(f"--{name} of the images in {artefacts.place()}", str(value), values))
    if len(fitting) > 1:
        by_name = {name: dict.fromkeys(each[name] for each in fitting.values()) for name in asdict(wanted)}
        differing = {name: values for name, values in by_name.items() if len(values) > 1}
        if len(differing) > 1:
            del differing["key"]
        choices = ", ".join(f"--{name} {' or '.join(map(str, values))}" for name, values in differing.items())
        raise ValueError(f"{len(fitting)} sets of images fit, and one is exported: choose by {choices}")
    return ImageSet(artefacts, *fitting)


def _coordinates(image_set: ImageSet) -> dict[str, Any]:
    run = {name: image_set.run[name] for name in ("method", "checkpoint", "shots", "seed")}
    return {"dataset": image_set.dataset, **run, "key": image_set.folder[-16:]}


def write(image_set: ImageSet, *, to: str, into: str, walk: Walk = iter) -> int:
    """Writes the images that the classifier trains on, one shard in memory at a time; all of them or nothing.

    Args:
        image_set: the set.
        to: one of `FORMATS`.
        into: a folder that does not exist, or is empty.
        walk: shows progress.

    Returns:
        The number of images.

    Raises:
        ValueError: if the format is unknown, the folder exists or cannot be written, or the set is incomplete.
    """
    if to not in FORMATS:
        raise ValueError(registry.unknown("form of export", to, FORMATS))
    module, folder = FORMATS[to], _free(into)
    if not image_set.complete:
        raise ValueError(
            f"{image_set.artefacts.place(image_set.folder)} is not done ({len(image_set.parts)} shards):"
            " the same `bob run` draws what is missing"
        )
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    try:
        staging.mkdir(parents=True)
        counts = module.write(_marked(image_set, walk), image_set.class_names, staging)
        readme = card.text(image_set, counts, config=module.CONFIG, load=module.LOAD.replace("FOLDER", folder.name))
        (staging / "README.md").write_text(readme, encoding="utf-8")
        os.replace(staging, folder)
    except OSError as error:
        raise ValueError(
            f"the export to {folder} failed ({files.words(error)}): make it possible, or choose another --into"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return sum(counts.values())


def _free(into: str) -> Path:
    if not into:
        raise ValueError("--into is empty: name the folder to write, which must not exist yet")
    if "://" in into:
        raise ValueError(f"--into is a folder on this machine, got {into!r}: export it here, then copy it there")
    folder = Path(into).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already: name a folder that does not, or an empty one")
    return folder


def _marked(image_set: ImageSet, walk: Walk) -> Iterator[list[dict[str, Any]]]:
    """Yields each shard's images as rows with the exported columns, pictures marked as synthetic."""
    t2i = model(image_set.run["checkpoint"])
    common = {"dataset": public(image_set.dataset), "method": image_set.run["method"], "model": t2i.words}
    for table in image_set.shards(walk=walk):
        yield [_row(row, common, image_set.class_names) for row in table.to_pylist()]


def _row(row: Mapping[str, Any], common: Mapping[str, str], class_names: Sequence[str]) -> dict[str, Any]:
    columns = {name: row[name] for name in _COLUMNS}
    facts = {**common, "label": row["class_id"], "class_name": class_names[row["class_id"]], **columns}
    try:
        return {"image": mark(row["image"], facts), **facts}
    except ValueError as error:
        raise ValueError(f"image {row['request_id']} cannot be exported: {error}") from error


_COLUMNS = (
    *("request_id", "prompt", "negative_prompt", "background", "pose", "seed", "kind", "source_ids", "strength"),
    *("guidance", "steps", "scheduler", "switch_at", "label_ids", "label_weights"),
)
"""Exported columns of schema.IMAGES."""
