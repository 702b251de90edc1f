"""Pictures of a report: thumbnails and texts.

A picture's row holds indices into one list of texts, because many pictures share a prompt or a background.
"""

import base64
import bisect
import functools
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from bob import datasets
from bob.core.types import Shot
from bob.store import Store, schema
from bob.store.images import ImageSet, Walk, find

__all__ = ["TINY", "Gallery", "collect", "thumbnail"]

_PIXELS = 1e8
"""Pixels of all thumbnails together: 10,000 thumbnails then have sides of 100 px and take some 30 MB."""
_LARGEST = 256
"""Largest side of a thumbnail, in pixels."""
TINY = 64
"""Largest side, in pixels, of a picture whose thumbnail is lossless and enlarged without smoothing."""

REAL = "real images"
"""Method shown for shots."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Data of the page's script."""

    sets: tuple[Mapping[str, Any], ...]
    """Sets of real images, one for each split, and of drawn images."""
    texts: tuple[str, ...]
    images: tuple[Sequence[Any], ...]
    """Row of each picture: see `_Collector._add`."""
    thumbnails: tuple[str, ...]
    """Thumbnails as WebP in base64, in the order of `images`."""
    each: int
    """Most images taken of each set and class; 0: all were taken."""
    whole: int
    """Number of images in the store."""
    notes: tuple[str, ...] = ()
    """Sentences on missing images."""


def collect(artefacts: Store, *, limit: int, walk: Walk = iter) -> Gallery:
    """Collects the pictures of a store: all, or the same number of each set and class if there are more than `limit`.

    Args:
        artefacts: the store; may be in use.
        limit: most pictures; exceeded only to show one picture of each set and class.
        walk: shows progress.

    Raises:
        ValueError: if a file is damaged.
    """
    image_sets = find(artefacts)
    splits = {image_set.split: image_set for image_set in image_sets}
    shots = {split: _train(artefacts, split) for split in splits}
    counts = [n for rows in shots.values() for n in Counter(shot.class_id for shot in rows).values()]
    counts += [n for image_set in image_sets for n in Counter(image_set.requests["class_id"].to_pylist()).values()]
    each = _share(counts, limit)
    taken = sum(min(each, n) for n in counts)
    collector = _Collector(each=each, side=min(_LARGEST, int((_PIXELS / max(1, taken)) ** 0.5)))
    contexts = _contexts(artefacts)
    for split, image_set in splits.items():
        collector.add_shots(image_set, shots[split], contexts)
    for image_set in image_sets:
        collector.add_set(image_set)
    parts = {f"{image_set.folder}/{part}": (image_set, part) for image_set in image_sets for part in image_set.parts}
    for path in walk(list(parts)):
        collector.add_shard(*parts[path])
    return collector.gallery(each=each if taken < sum(counts) else 0, whole=sum(counts))


def _train(artefacts: Store, split: str) -> list[Shot]:
    table = artefacts.read_checked(split, schema.SHOTS, least=1)
    return [Shot(**row) for row in table.filter(pc.field("split") == "train").to_pylist()]


def _share(counts: Sequence[int], limit: int) -> int:
    """Returns how many to take of each group so that all together are at most `limit`; at least one."""
    most = max(counts, default=0)
    if sum(counts) <= limit:
        return most
    return max(1, bisect.bisect_right(range(most + 1), limit, key=lambda k: sum(min(k, n) for n in counts)) - 1)


def _contexts(artefacts: Store) -> dict[tuple[str, str], tuple[str, str]]:
    """Returns (address of the data set, image id) -> background and pose of the caption."""
    contexts = {}
    for name in artefacts.names("captions"):
        if ".rejected." not in name:
            path = f"captions/{name}"
            address = artefacts.manifest(path)["config"]["dataset"]
            for row in artefacts.read_checked(path, schema.CAPTIONS).to_pylist():
                contexts[address, row["image_id"]] = row["background"], row["pose"]
    return contexts


def setting(run: Mapping[str, Any]) -> str:
    """Returns shots and seed in words; a long tail, whose name includes its setting, has no shots."""
    return f"{run['shots']}-shot, seed {run['seed']}" if run["shots"] else f"seed {run['seed']}"


@dataclass(eq=False)
class _Collector:
    each: int
    side: int
    sets: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[tuple[Any, ...], list[Any], str]] = field(default_factory=list)
    """(sort key, row of the page, thumbnail)."""
    notes: list[str] = field(default_factory=list)
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(set, class id) -> number of images taken."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Folder of a set of drawn images -> index in `sets`."""

    def add_shots(
        self, image_set: ImageSet, shots: Sequence[Shot], contexts: Mapping[tuple[str, str], tuple[str, str]]
    ) -> None:
        """Adds the shots of one split, or a note if their pictures are not on this machine."""
        run = image_set.run
        try:
            dataset = datasets.load(run["dataset"], run["descriptor"])
            taken = list(self._take(shots, len(self.sets)))
            thumbnails = [thumbnail(dataset.open(shot), self.side) for shot in taken]
        except ValueError as error:
            self.notes.append(f"The real images of {image_set.dataset}, {setting(run)}, cannot be shown: {error}.")
            return
        self._set(image_set, method=REAL, setting=setting(run), checkpoint="")
        for index, (shot, small) in enumerate(zip(taken, thumbnails, strict=True)):
            background, pose = contexts.get((run["dataset"], shot.image_id), ("", ""))
            row = {"name": shot.image_id, "background": background, "pose": pose, "size": (shot.width, shot.height)}
            self._add(shot.class_id, index, row, small)

    def _take(self, shots: Sequence[Shot], number: int) -> Iterator[Shot]:
        for shot in shots:
            if self.counts[number, shot.class_id] < self.each:
                self.counts[number, shot.class_id] += 1
                yield shot

    def add_set(self, image_set: ImageSet) -> None:
        """Adds a set of drawn images, without its images."""
        run, name = image_set.run, setting(image_set.run)
        self.numbers[image_set.folder] = len(self.sets)
        method, checkpoint = run["method"], run["checkpoint"]
        coordinates = {"dataset": image_set.dataset, "method": method, "setting": name, "checkpoint": checkpoint}
        if any(coordinates.items() <= other.items() for other in self.sets):
            name += f" ({image_set.folder[-16:-12]})"  # part of the key: the sets differ in other settings
        self._set(image_set, method=method, setting=name, checkpoint=checkpoint)
        if not image_set.complete:
            shards = -(-len(image_set.requests) // run["draw"]["unit"])
            self.notes.append(
                f"{method} on {image_set.dataset}, {name}, is not done: {len(image_set.parts)} of {shards} shards are"
                " drawn."
            )

    def _set(self, image_set: ImageSet, **coordinates: str) -> None:
        names = [self.text(name) for name in image_set.class_names]
        self.sets.append({"dataset": image_set.dataset, **coordinates, "classes": names, "split": image_set.split})

    def add_shard(self, image_set: ImageSet, part: str) -> None:
        """Adds images of one shard, up to `each` of a class."""
        number = self.numbers[image_set.folder]
        if all(self.counts[number, k] >= self.each for k in set(image_set.requested(part)["class_id"].to_pylist())):
            return  # without reading the shard: a store may hold a million images
        rows = []
        for row in image_set.read(part).to_pylist():
            if self.counts[number, row["class_id"]] < self.each:
                self.counts[number, row["class_id"]] += 1
                rows.append(row)
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes and encodes without the GIL
            decode = functools.partial(_decoded, side=self.side, place=f"{image_set.folder}/{part}")
            for row, small in zip(rows, threads.map(decode, rows), strict=True):
                facts = {
                    **{name: row[name] for name in ("prompt", "background", "pose")},
                    "name": row["request_id"],
                    "negative": row["negative_prompt"],
                    "seed": row["seed"],
                    "how": _how(row),
                    "label": _label(row, image_set.class_names),
                    "sources": row["source_ids"],
                    "size": (row["width"], row["height"]),
                }
                self._add(row["class_id"], row["index"], facts, small, number=number)

    def _add(self, class_id: int, index: int, facts: Mapping[str, Any], small: str, *, number: int = -1) -> None:
        """Adds a row: set, class id, seven indices of texts, seed, texts of the sources, width and height in pixels."""
        number = number % len(self.sets)
        names = ("name", "prompt", "negative", "background", "pose", "how", "label")
        texts = [self.text(facts.get(name, "")) for name in names]
        seed = str(facts.get("seed", ""))  # exceeds the integers that JavaScript represents exactly
        sources = [self.text(name) for name in facts.get("sources", ())]
        order = (self.sets[number]["dataset"], class_id, number, index)
        self.rows.append((order, [number, class_id, *texts, seed, sources, *facts["size"]], small))

    def text(self, text: str) -> int:
        """Returns the index of a text, added to the list if new."""
        return self.texts.setdefault(text, len(self.texts))

    def gallery(self, *, each: int, whole: int) -> Gallery:
        """Returns all pictures, sorted by data set, class and set."""
        rows = sorted(self.rows, key=lambda row: row[0])
        return Gallery(
            sets=tuple(self.sets),
            texts=tuple(self.texts),
            images=tuple(row for _, row, _ in rows),
            thumbnails=tuple(small for _, _, small in rows),
            each=each,
            whole=whole,
            notes=tuple(self.notes),
        )


def _how(row: Mapping[str, Any]) -> str:
    """Returns the sampler's settings in words."""
    of_kind = {"img2img": f", strength {row['strength']:g}", "circle": f", prompt switched at {row['switch_at']:g}"}
    sampler = "" if row["scheduler"] == "default" else f" of {row['scheduler']}"
    return f"{row['kind']}{of_kind.get(row['kind'], '')}, guidance {row['guidance']:g}, {row['steps']} steps{sampler}"


def _label(row: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Returns the image's soft label in words; empty if the label is its class alone."""
    if row["label_ids"] == [row["class_id"]]:
        return ""
    pairs = zip(row["label_ids"], row["label_weights"], strict=True)
    return ", ".join(f"{100 * weight:.0f} % {class_names[k]}" for k, weight in pairs)


def _decoded(row: Mapping[str, Any], *, side: int, place: str) -> str:
    try:
        with Image.open(io.BytesIO(row["image"])) as picture:
            return thumbnail(picture, side)
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"image {row['request_id']} in {place} cannot be decoded ({error}): delete the file, and the"
            " same `bob run` draws it again"
        ) from error


def thumbnail(picture: Image.Image, side: int) -> str:
    """Returns a WebP in base64, at most `side` pixels wide and high."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=max(picture.size) <= TINY, quality=75)
    return base64.b64encode(buffer.getvalue()).decode()
