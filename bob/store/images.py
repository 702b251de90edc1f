"""Sets of drawn images: folders of requests and shards in a store, read one shard at a time."""

import dataclasses
import functools
import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bob.core.types import Filter, Request
from bob.store import Store, quarantine, schema

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageSet", "Walk", "find", "image_row", "keep", "read_images"]

Walk = Callable[[Sequence[str]], Iterable[str]]
"""Files -> the same files, while progress is shown."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """The drawn images of one folder, `images/NAME`."""

    artefacts: Store
    folder: str

    @functools.cached_property
    def origin(self) -> dict[str, Any]:
        """Manifest of the request table."""
        return self.artefacts.manifest(f"{self.folder}/requests.parquet")

    @property
    def run(self) -> Mapping[str, Any]:
        """The first run that the images were drawn for: fields of `bob.core.settings.Run`."""
        return self.origin["config"]

    @functools.cached_property
    def requests(self) -> pa.Table:
        """The request table: rows of `schema.REQUESTS`."""
        return self.artefacts.read_checked(f"{self.folder}/requests.parquet", schema.REQUESTS)

    @functools.cached_property
    def parts(self) -> Sequence[str]:
        """Names of the finished shards, in order."""
        return [name for name in self._names if name.startswith("part-") and ".rejected." not in name]

    @functools.cached_property
    def _names(self) -> Sequence[str]:
        return self.artefacts.names(self.folder)

    def requested(self, part: str) -> pa.Table:
        """Returns the rows of `requests` that belong to one shard."""
        unit, number = self.run["draw"]["unit"], int(part.removeprefix("part-").removesuffix(".parquet"))
        return self.requests.slice(number * unit, unit)

    @property
    def complete(self) -> bool:
        """Whether all shards exist; opens none."""
        return len(self.parts) == -(-len(self.requests) // self.run["draw"]["unit"])

    @functools.cached_property
    def _scores(self) -> Mapping[str, float]:
        """Request id -> CLIP's score, ordered by class id and index."""
        scores: dict[str, float] = {}
        for name in (name for name in self._names if name.startswith("scores-")):
            table = self.artefacts.read_checked(f"{self.folder}/{name}", schema.SCORES)
            scores |= dict(zip(table["request_id"].to_pylist(), table["score"].to_pylist(), strict=True))
        return {name: scores[name] for name in self._classes if name in scores}

    @functools.cached_property
    def _classes(self) -> Mapping[str, int]:
        """Request id -> class id, ordered by class id and index."""
        ordered = self.requests.sort_by([("class_id", "ascending"), ("index", "ascending")])
        return dict(zip(ordered["request_id"].to_pylist(), ordered["class_id"].to_pylist(), strict=True))

    @functools.cached_property
    def _kept(self) -> frozenset[str]:
        """Request ids of the scored images that the filter keeps. Only where there is a filter."""
        rule = Filter.parse(self.origin["filter"])
        return frozenset(keep(self._scores, self._classes, rule, self.origin["wanted"]))

    def read(self, part: str) -> pa.Table:
        """Returns the images of one shard that the filter keeps: rows of `schema.IMAGES`.

        Raises:
            ValueError: if the shard is damaged, or the filter has no score of an image.
        """
        return self._filtered(self._whole(part))

    def shards(self, *, walk: Walk = iter) -> Iterator[pa.Table]:
        """Yields all images that the filter keeps, rows of `schema.IMAGES`, one shard at a time.

        Args:
            walk: shows progress.

        Raises:
            ValueError: as `read`; after the last shard, if requested images are neither drawn nor rejected.
        """
        missing = dict.fromkeys(self._classes)
        for part in walk(self.parts):
            table = self._whole(part)
            for name in [*table["request_id"].to_pylist(), *self._rejected(part)]:
                missing.pop(name, None)
            yield self._filtered(table)
        if missing:
            raise ValueError(
                f"{self.artefacts.place(self.folder)} lacks {len(missing)} of {len(self.requests)} images,"
                f" {min(missing)} among them: delete its part-*.parquet files that are short, and the same command"
                " makes them again"
            )

    def _whole(self, part: str) -> pa.Table:
        return self.artefacts.read_checked(f"{self.folder}/{part}", schema.IMAGES)

    def _filtered(self, table: pa.Table) -> pa.Table:
        if "filter" not in self.origin:
            return table
        names = table["request_id"].to_pylist()
        if unjudged := set(names) - set(self._scores):
            raise ValueError(
                f"{self.artefacts.place(self.folder)} lacks the scores of {len(unjudged)} images, {min(unjudged)} among"
                " them: delete the part-*.parquet without a scores-*.parquet, and the same command makes both again"
            )
        return table.filter(pa.array([name in self._kept for name in names], pa.bool_()))

    def _rejected(self, part: str) -> list[str]:
        rejected = quarantine(part)
        if rejected not in self._names:
            return []
        return self.artefacts.read_checked(f"{self.folder}/{rejected}", schema.REJECTED)["row_id"].to_pylist()

    @property
    def split(self) -> str:
        """Path of the table of the shots that the images were drawn from.

        Raises:
            ValueError: if the request table is of an earlier version, whose manifest lacks the path.
        """
        if "split" not in self.origin:
            raise ValueError(
                f"{self.artefacts.place(self.folder)}/requests.parquet does not say which shots it was made from, as"
                " earlier versions did not: delete it, and the same `bob run` writes it again and keeps the images"
            )
        return self.origin["split"]

    @functools.cached_property
    def dataset(self) -> str:
        """Name of the data set, with its argument."""
        return self._shots["dataset"]

    @property
    def class_names(self) -> Sequence[str]:
        """Class names, indexed by class id."""
        return self._shots["class_names"]

    @functools.cached_property
    def _shots(self) -> Mapping[str, Any]:
        return self.artefacts.manifest(self.split)["config"]


def find(artefacts: Store) -> list[ImageSet]:
    """Returns the sets of drawn images in a store, complete or not, in the order of their folders' names.

    Raises:
        ValueError: if the store does not exist or cannot be listed.
    """
    tables = sorted(path for path in artefacts.listing() if path.startswith("images/"))
    return [ImageSet(artefacts, path.rpartition("/")[0]) for path in tables if path.endswith("/requests.parquet")]


def read_images(
    artefacts: Store, folder: str, *, shard: Callable[[pa.Table], pa.Table] = lambda table: table
) -> pa.Table:
    """Returns the images of a complete set that its filter keeps, ordered by (class_id, index).

    Args:
        artefacts: the store of the images.
        folder: the folder of the shards.
        shard: selects the rows or columns of each shard that stay in memory; `request_id`, `class_id` and `index` must
            be among these.

    Raises:
        ValueError: if a file is damaged, or requested images are neither drawn nor rejected.
    """
    parts = [
        shard(table) for table in itertools.chain([schema.IMAGES.empty_table()], ImageSet(artefacts, folder).shards())
    ]
    return pa.concat_tables(parts).sort_by([("class_id", "ascending"), ("index", "ascending")])


def image_row(request: Request, picture: "Image.Image", *, checkpoint: str, seconds: float) -> dict[str, Any]:
    """Returns a row of `schema.IMAGES`."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    image = buffer.getvalue()
    return {
        **vars(request),
        "image": image,
        "format": "png",
        "width": picture.width,
        "height": picture.height,
        "sha1": hashlib.sha1(image, usedforsecurity=False).hexdigest(),
        "checkpoint": checkpoint,
        "seconds": seconds,
    }


def keep(scores: Mapping[str, float], classes: Mapping[str, int], rule: Filter, wanted: Sequence[int]) -> set[str]:
    """Returns the ids of the images to keep: of each class the first that pass, then the best that fail.

    Args:
        scores: request id -> score, in the order of the requests.
        classes: request id -> class id.
        rule: the filter to pass.
        wanted: number of images of each class, by class id.
    """
    worst = sorted(scores, key=lambda name: scores[name])[: int(rule.drop * len(scores) + 1e-9)]
    failed = {name for name in scores if scores[name] <= rule.least} | set(worst)
    kept: set[str] = set()
    for class_id, count in enumerate(wanted):
        names = [name for name in scores if classes[name] == class_id]
        passed = [name for name in names if name not in failed]
        failing = sorted((name for name in names if name in failed), key=lambda name: -scores[name])
        kept |= set((passed + failing)[:count])
    return kept
