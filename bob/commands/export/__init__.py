"""`bob export`: a set of drawn images for others, marked as synthetic, in the forms that they load.

    hf           Parquet with pictures and class names          datasets.load_dataset(FOLDER)
    imagefolder  CLASS/IMAGE.png and metadata.csv               torchvision's ImageFolder, datasets' imagefolder
    webdataset   tar shards: IMAGE.png, IMAGE.cls, IMAGE.json   webdataset, datasets' webdataset

Each holds a README.md, the data card, and says in each picture's own metadata what drew it (paper, ethics statement).
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
"""What `--to` takes -> the module of that form: `write`, `CONFIG` for the card, and `LOAD`, the code that reads it."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which set of drawn images; what is left empty may be anything."""

    dataset: str = ""
    method: str = ""
    checkpoint: str = ""
    """T2I checkpoint."""
    shots: int = 0
    """Training images per class."""
    seed: int | None = None
    key: str = ""
    """The 16 digits at the end of its folder's name, where all else agrees."""


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes one set of drawn images for others: marked as synthetic, with a data card.

    bob export out --method bob --to hf --into birds
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    to: Literal["hf", "imagefolder", "webdataset"]
    """hf: Parquet for `datasets.load_dataset`; imagefolder: CLASS/IMAGE.png; webdataset: tar shards."""
    into: str
    """The folder to write, which is not there yet."""
    wanted: Annotated[Wanted, tyro.conf.arg(name="")]
    """Which set, where there are several."""

    def main(self, arguments: Sequence[str]) -> int:
        """Does it and prints what came; returns the exit code."""
        artefacts = Store(self.out)
        chosen = choose(artefacts, self.wanted)
        number = write(chosen, to=self.to, into=self.into, walk=console.walk)
        print(f"{self.into}: {number:,} images of {artefacts.place(chosen.folder)}")
        return 0


def choose(artefacts: Store, wanted: Wanted) -> ImageSet:
    """The one set of drawn images that fits.

    Raises:
        ValueError: if none fits, or several do; says what there is.
    """
    found = {of.folder: _coordinates(of) for of in find(artefacts)}
    if not found:
        raise ValueError(f"{artefacts.place()} holds no drawn images: name a folder that `bob run` has drawn into")
    fitting = dict(found)
    for name, value in asdict(wanted).items():
        if value in ("", None) or (name == "shots" and not value):
            continue
        known = dict.fromkeys(str(of[name]) for of in fitting.values())
        fitting = {folder: of for folder, of in fitting.items() if of[name] == value}
        if not fitting:
            raise ValueError(registry.unknown(f"--{name} of the images in {artefacts.place()}", str(value), known))
    if len(fitting) > 1:
        values = {name: dict.fromkeys(of[name] for of in fitting.values()) for name in asdict(wanted)}
        differing = {name: held for name, held in values.items() if len(held) > 1}
        if len(differing) > 1:
            del differing["key"]
        choices = ", ".join(f"--{name} {' or '.join(map(str, held))}" for name, held in differing.items())
        raise ValueError(f"{len(fitting)} sets of images fit, and one is exported: choose by {choices}")
    return ImageSet(artefacts, *fitting)


def _coordinates(of: ImageSet) -> dict[str, Any]:
    run = {name: of.run[name] for name in ("method", "checkpoint", "shots", "seed")}
    return {"dataset": of.dataset, **run, "key": of.folder[-16:]}


def write(of: ImageSet, *, to: str, into: str, walk: Walk = iter) -> int:
    """Writes the images that the classifier is given, one shard in memory at a time; all of it or nothing.

    Args:
        of: the set.
        to: one of `FORMATS`.
        into: a folder that is not there, or empty.
        walk: shows progress.

    Returns:
        How many images.

    Raises:
        ValueError: if the form is unknown, the folder is taken or cannot be written, or the set is not whole.
    """
    if to not in FORMATS:
        raise ValueError(registry.unknown("form of export", to, FORMATS))
    form, folder = FORMATS[to], _free(into)
    if not of.complete:
        raise ValueError(
            f"{of.artefacts.place(of.folder)} is not done ({len(of.parts)} shards): the same `bob run` draws what is"
            " missing"
        )
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    try:
        beside.mkdir(parents=True)
        counts = form.write(_marked(of, walk), of.class_names, beside)
        described = card.text(of, counts, config=form.CONFIG, load=form.LOAD.replace("FOLDER", folder.name))
        (beside / "README.md").write_text(described, encoding="utf-8")
        os.replace(beside, folder)
    except OSError as error:
        raise ValueError(
            f"the export to {folder} failed ({files.words(error)}): make it possible, or choose another --into"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sum(counts.values())


def _free(into: str) -> Path:
    if not into:
        raise ValueError("--into is the folder to write, which is not there yet: name one")
    if "://" in into:
        raise ValueError(f"--into is a folder on this machine, got {into!r}: export it here, then copy it there")
    folder = Path(into).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a folder that is not, or an empty one")
    return folder


def _marked(of: ImageSet, walk: Walk) -> Iterator[list[dict[str, Any]]]:
    """Of each shard its images, as rows of what all forms keep, with their marks."""
    by = model(of.run["checkpoint"])
    same = {"dataset": public(of.dataset), "method": of.run["method"], "model": by.words}
    for table in of.shards(walk=walk):
        yield [_row(row, same, of.class_names) for row in table.to_pylist()]


def _row(row: Mapping[str, Any], same: Mapping[str, str], class_names: Sequence[str]) -> dict[str, Any]:
    kept = {name: row[name] for name in _KEPT}
    said = {**same, "label": row["class_id"], "class_name": class_names[row["class_id"]], **kept}
    try:
        return {"image": mark(row["image"], said), **said}
    except ValueError as error:
        raise ValueError(f"image {row['request_id']} cannot be exported: {error}") from error


_KEPT = (
    *("request_id", "prompt", "negative_prompt", "background", "pose", "seed", "kind", "source_ids", "strength"),
    *("guidance", "steps", "scheduler", "switch_at", "label_ids", "label_weights"),
)
"""Columns of schema.IMAGES that tell others something."""
