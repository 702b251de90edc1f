"""What a worker process does with the units that measure images: their features."""

import io
from collections.abc import Callable

from PIL import Image

from bob import datasets, store
from bob.core import malloc
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, Unit
from bob.store import schema
from bob.store.commit import commit

__all__ = ["EmbedWorker"]


class EmbedWorker:
    """A unit's work: extractor, and images (a shard of drawn ones) or dataset and shots (real ones)."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device, self._name = store.Store(root), device, ""

    def __call__(self, unit: Unit) -> Receipt:
        """Embeds the unit's images; one that cannot be read goes to the unit's `rejected` file."""
        times, name = Stopwatch(self._device), unit.work["extractor"]
        if self._name != name:
            with malloc.importing():
                from bob.classifier.embedder import Embedder

                self._embedder = Embedder(name, device=self._device)
                self._embedder.load()
            self._name = name
        ids, class_ids, load = self._drawn(unit) if "images" in unit.work else self._real(unit)
        with times("work"):
            rows, rejected = self._embedder(ids, class_ids, load)
        return commit(unit, rows, schema.FEATURES, rejected, self._store, times=times, note=self._embedder.note())

    def _drawn(self, unit: Unit) -> tuple[list[str], list[int], Callable[[int], Image.Image]]:
        table = self._store.read_checked(unit.work["images"], schema.IMAGES)
        contents = table["image"].to_pylist()
        return (
            table["request_id"].to_pylist(),
            table["class_id"].to_pylist(),
            lambda k: Image.open(io.BytesIO(contents[k])),
        )

    def _real(self, unit: Unit) -> tuple[list[str], list[int], Callable[[int], Image.Image]]:
        dataset, shots = datasets.load(unit.work["dataset"]), [Shot(**shot) for shot in unit.work["shots"]]
        return [shot.image_id for shot in shots], [shot.class_id for shot in shots], lambda k: dataset.open(shots[k])
