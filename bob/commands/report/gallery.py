"""The pictures of a report: a small copy of each, and what the page says of it.

The page gets rows of numbers that point into one list of texts, for a prompt or a background stands in many of them.
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
"""Of all small copies together: at 10,000 of them a side of 100 px, some 30 MB of page."""
_LARGEST = 256
"""Pixels: the side of a small copy where there are few."""
TINY = 64
"""Pixels: up to this side the copy is lossless and shown in sharp squares, for it is enlarged."""

REAL = "real images"
"""What stands for the method of a shot."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What the page's script reads."""

    sets: tuple[Mapping[str, Any], ...]
    """The real images of each split, and each set of drawn ones."""
    texts: tuple[str, ...]
    images: tuple[Sequence[Any], ...]
    """A row each: see `_Collector.add`."""
    thumbnails: tuple[str, ...]
    """Base64 of a WebP, in the order of `images`."""
    each: int
    """So many of each set and class at the most were taken; 0: all."""
    whole: int
    """Images that there are."""
    notes: tuple[str, ...] = ()
    """What the reader has to know: what is not there."""


def collect(artefacts: Store, *, limit: int, walk: Walk = iter) -> Gallery:
    """The pictures of a store: all, or the same number of each set and class where there are more than `limit`.

    Args:
        artefacts: the store; may be in use.
        limit: more are shown only where sets and classes are more than that: one of each.
        walk: shows progress.

    Raises:
        ValueError: if something is damaged.
    """
    found = find(artefacts)
    splits = {of.split: of for of in found}
    shots = {split: _train(artefacts, split) for split in splits}
    counts = [n for rows in shots.values() for n in Counter(shot.class_id for shot in rows).values()]
    counts += [n for of in found for n in Counter(of.requests["class_id"].to_pylist()).values()]
    each = _share(counts, limit)
    taken = sum(min(each, n) for n in counts)
    to = _Collector(each=each, side=min(_LARGEST, int((_PIXELS / max(1, taken)) ** 0.5)))
    contexts = _contexts(artefacts)
    for split, of in splits.items():
        to.real(of, shots[split], contexts)
    for of in found:
        to.begin(of)
    parts = {f"{of.folder}/{part}": (of, part) for of in found for part in of.parts}
    for path in walk(list(parts)):
        to.shard(*parts[path])
    return to.gallery(each=each if taken < sum(counts) else 0, whole=sum(counts))


def _train(artefacts: Store, split: str) -> list[Shot]:
    table = artefacts.read_checked(split, schema.SHOTS, least=1)
    return [Shot(**row) for row in table.filter(pc.field("split") == "train").to_pylist()]


def _share(counts: Sequence[int], limit: int) -> int:
    """The most that can be taken of each of these so that all together are at most `limit`, but one at least."""
    most = max(counts, default=0)
    if sum(counts) <= limit:
        return most
    return max(1, bisect.bisect_right(range(most + 1), limit, key=lambda k: sum(min(k, n) for n in counts)) - 1)


def _contexts(artefacts: Store) -> dict[tuple[str, str], tuple[str, str]]:
    """(address of the data set, image id) -> background and pose, as a captioner read them."""
    found = {}
    for name in artefacts.names("captions"):
        if ".rejected." not in name:
            path = f"captions/{name}"
            address = artefacts.manifest(path)["config"]["dataset"]
            for row in artefacts.read_checked(path, schema.CAPTIONS).to_pylist():
                found[address, row["image_id"]] = row["background"], row["pose"]
    return found


def setting(run: Mapping[str, Any]) -> str:
    """Shots and seed, in words. A long tail, whose name says its setting, has no shots."""
    return f"{run['shots']}-shot, seed {run['seed']}" if run["shots"] else f"seed {run['seed']}"


@dataclass(eq=False)
class _Collector:
    each: int
    side: int
    sets: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[tuple[Any, ...], list[Any], str]] = field(default_factory=list)
    """(what it is sorted by, what the page gets, small copy)."""
    notes: list[str] = field(default_factory=list)
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(set, class id) -> images taken."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Folder -> set."""

    def real(self, of: ImageSet, shots: Sequence[Shot], contexts: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        """Adds the shots of one split, if their pictures are on this machine."""
        run = of.run
        try:
            dataset = datasets.load(run["dataset"], run["descriptor"])
            some = list(self._some(shots, len(self.sets)))
            small = [thumbnail(dataset.open(shot), self.side) for shot in some]
        except ValueError as error:
            self.notes.append(f"The real images of {of.dataset}, {setting(run)}, cannot be shown: {error}.")
            return
        self._set(of, method=REAL, setting=setting(run), checkpoint="")
        for index, (shot, copy) in enumerate(zip(some, small, strict=True)):
            background, pose = contexts.get((run["dataset"], shot.image_id), ("", ""))
            row = {"name": shot.image_id, "background": background, "pose": pose, "size": (shot.width, shot.height)}
            self._add(shot.class_id, index, row, copy)

    def _some(self, shots: Sequence[Shot], number: int) -> Iterator[Shot]:
        for shot in shots:
            if self.counts[number, shot.class_id] < self.each:
                self.counts[number, shot.class_id] += 1
                yield shot

    def begin(self, of: ImageSet) -> None:
        """Adds a set of drawn images, without any of them."""
        self.numbers[of.folder] = len(self.sets)
        method, called, checkpoint = of.run["method"], setting(of.run), of.run["checkpoint"]
        coordinates = {"dataset": of.dataset, "method": method, "setting": called, "checkpoint": checkpoint}
        if any(coordinates.items() <= held.items() for held in self.sets):
            called += f" ({of.folder[-16:-12]})"  # of its key: they differ in something else
        self._set(of, method=method, setting=called, checkpoint=checkpoint)
        if not of.complete:
            unit = of.run["draw"]["unit"]
            self.notes.append(
                f"{method} on {of.dataset}, {called}, is not done: {len(of.parts)} of"
                f" {-(-len(of.requests) // unit)} shards are drawn."
            )

    def _set(self, of: ImageSet, **coordinates: str) -> None:
        names = [self.text(name) for name in of.class_names]
        self.sets.append({"dataset": of.dataset, **coordinates, "classes": names, "split": of.split})

    def shard(self, of: ImageSet, part: str) -> None:
        """Adds of one shard what is not enough yet of its class."""
        number = self.numbers[of.folder]
        if all(self.counts[number, k] >= self.each for k in set(of.requested(part)["class_id"].to_pylist())):
            return  # unread: a store may hold a million
        wanted = []
        for row in of.read(part).to_pylist():
            if self.counts[number, row["class_id"]] < self.each:
                self.counts[number, row["class_id"]] += 1
                wanted.append(row)
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes and encodes without the GIL
            copies = threads.map(functools.partial(_decoded, side=self.side, place=f"{of.folder}/{part}"), wanted)
            for row, copy in zip(wanted, copies, strict=True):
                said = {
                    **{name: row[name] for name in ("prompt", "background", "pose")},
                    "name": row["request_id"],
                    "negative": row["negative_prompt"],
                    "seed": row["seed"],
                    "how": _how(row),
                    "label": _label(row, of.class_names),
                    "sources": row["source_ids"],
                    "size": (row["width"], row["height"]),
                }
                self._add(row["class_id"], row["index"], said, copy, number=number)

    def _add(self, class_id: int, index: int, said: Mapping[str, Any], copy: str, *, number: int = -1) -> None:
        """A row: set, class id, nine texts or 0, texts of the sources, width and height in pixels."""
        number = number % len(self.sets)
        names = ("name", "prompt", "negative", "background", "pose", "how", "label")
        texts = [self.text(said.get(name, "")) for name in names]
        seed = str(said.get("seed", ""))  # JavaScript's numbers are too short for it
        sources = [self.text(name) for name in said.get("sources", ())]
        order = (self.sets[number]["dataset"], class_id, number, index)
        self.rows.append((order, [number, class_id, *texts, seed, sources, *said["size"]], copy))

    def text(self, text: str) -> int:
        """Its place in the list of texts."""
        return self.texts.setdefault(text, len(self.texts))

    def gallery(self, *, each: int, whole: int) -> Gallery:
        """All that was added, by data set, class and set."""
        rows = sorted(self.rows, key=lambda row: row[0])
        return Gallery(
            sets=tuple(self.sets),
            texts=tuple(self.texts),
            images=tuple(row for _, row, _ in rows),
            thumbnails=tuple(copy for _, _, copy in rows),
            each=each,
            whole=whole,
            notes=tuple(self.notes),
        )


def _how(row: Mapping[str, Any]) -> str:
    """The sampler's settings, in words."""
    of_kind = {"img2img": f", strength {row['strength']:g}", "circle": f", prompt switched at {row['switch_at']:g}"}
    sampler = "" if row["scheduler"] == "default" else f" of {row['scheduler']}"
    return f"{row['kind']}{of_kind.get(row['kind'], '')}, guidance {row['guidance']:g}, {row['steps']} steps{sampler}"


def _label(row: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """What the classifier learns, where that is not simply its class."""
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
    """A WebP of the picture, at most `side` pixels wide and high, as base64."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=max(picture.size) <= TINY, quality=75)
    return base64.b64encode(buffer.getvalue()).decode()
