"""Features of real and drawn images, for the distances between them (Figures 4 and 6)."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from bob import backbones, datasets, store
from bob.core import malloc
from bob.core.seeds import derive
from bob.core.settings import Run
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Outcome, Receipt, Shot, Unit
from bob.diffusion import checkpoints
from bob.store import schema
from bob.store.commit import commit

__all__ = [
    "DrawnWork",
    "EmbedWorker",
    "RealWork",
    "drawn_units",
    "extractor_of",
    "group_by_split",
    "real_units",
    "units",
]

_REAL = "timm:inception_v3.tf_in1k"
"""Extractor for photos: 2,048 pooled features at 299 px. FID's usual network is another Inception
(pt_inception-2015-12-05), so values compare with each other, not with those of papers. Its commit on the hub
is not pinned: `git ls-remote https://huggingface.co/timm/inception_v3.tf_in1k main` gives what to add after an @."""
_MINI = "resnet_mini"
"""Extractor for skyworld: 128 features of a network that tells families of aircraft, backgrounds and poses apart."""
_UNIT = 250  # real images


@dataclass(frozen=True, kw_only=True)
class DrawnWork:
    """Work of a unit: a shard of drawn images to embed."""

    extractor: str
    """A backbone, without its head."""
    images: str
    """Path of the shard."""
    inputs: Any


@dataclass(frozen=True, kw_only=True)
class RealWork:
    """Work of a unit: real images to embed."""

    extractor: str
    """A backbone, without its head."""
    dataset: str
    shots: tuple[Shot, ...]
    inputs: Any


def units(outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str, against: str) -> list[Unit]:
    """Returns the units that embed the drawn images of runs and the real images they are compared with, each once.

    Args:
        outcomes: runs whose images are drawn.
        artefacts: the store of the images.
        extractor: a backbone; empty: Inception v3, or for runs on skyworld its ResNet.
        against: the real images: `train`, all images of the training side (per class at most twice as many as are
            drawn, the shots first), or `test`.

    Raises:
        ValueError: if the extractor is unknown, `against` is neither, or no run draws images.
    """
    by_target: dict[str, Unit] = {}
    for group in group_by_split(outcomes):
        name = extractor_of(group, extractor)
        for unit in real_units(group, artefacts, name, against):
            by_target[unit.target] = unit
        for outcome in group:
            for unit in drawn_units(outcome, artefacts, name):
                by_target[unit.target] = unit
    return list(by_target.values())


def group_by_split(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Groups the outcomes that have images by their split; each folder of images once.

    Raises:
        ValueError: if no outcome has images.
    """
    drawn = list({outcome.images: outcome for outcome in reversed(outcomes) if outcome.images}.values())[::-1]
    if not drawn:
        raise ValueError("none of these runs draws images, so there is nothing to measure: add a method that does")
    return [[o for o in drawn if o.split == split] for split in dict.fromkeys(o.split for o in drawn)]


def extractor_of(outcomes: Sequence[Outcome], chosen: str) -> str:
    """Returns the chosen extractor, or where it is empty the default for these outcomes."""
    if chosen:
        return chosen
    return _MINI if all(checkpoints.settings(o.run.checkpoint).mini for o in outcomes) else _REAL


def real_units(outcomes: Sequence[Outcome], artefacts: store.Store, extractor: str, against: str) -> Iterator[Unit]:
    """Yields the units of the real images that outcomes of one split are compared with."""
    outcome = outcomes[0]
    shots = _shots(outcome, artefacts, against, most=2 * max(o.run.draw.per_class for o in outcomes))
    for start in range(0, len(shots), _UNIT):
        chunk = shots[start : start + _UNIT]
        inputs = [*_identity(extractor), outcome.dataset, [(s.image_id, s.sha1, s.class_id) for s in chunk]]
        name = store.slug(f"{outcome.dataset} {against} {extractor}")
        yield Unit(
            step="embed",
            target=f"features/{name}-{store.key(*inputs)}.parquet",
            label=f"{outcome.dataset} {against} side of classes {chunk[0].class_id} to {chunk[-1].class_id}",
            size=len(chunk),
            group=extractor,
            work=RealWork(
                extractor=extractor, dataset=outcome.run.dataset, shots=tuple(chunk), inputs=store.plain(inputs)
            ),
        )


def _shots(outcome: Outcome, artefacts: store.Store, against: str, *, most: int) -> list[Shot]:
    if against not in ("train", "test"):
        raise ValueError(f"images are compared with those of train or test, got {against!r}")
    split = [Shot(**row) for row in artefacts.read_checked(outcome.split, schema.SHOTS).to_pylist()]
    test = [shot for shot in split if shot.split == "test"]
    if against == "test":  # shuffled: neighbours in a listing may be of one photographer
        return sorted(test, key=lambda shot: (shot.class_id, derive("embed", outcome.dataset, shot.image_id)))
    run: Run = outcome.run
    dataset = datasets.load(run.dataset, run.descriptor)
    return list(dataset.training_side(most=most, seed=run.seed, without={shot.image_id for shot in test}))


def drawn_units(outcome: Outcome, artefacts: store.Store, extractor: str) -> Iterator[Unit]:
    """Yields a unit per shard. The key has the shard's path, which identifies its content but for rejected images."""
    run = outcome.run
    names = [name for name in artefacts.names(outcome.images) if name.startswith("part-") and ".rejected." not in name]
    for name in names:
        path = f"{outcome.images}/{name}"
        inputs = [*_identity(extractor), path]
        yield Unit(
            step="embed",
            target=f"features/{store.slug(f'{outcome.dataset} {run.method} {extractor}')}-{store.key(*inputs)}.parquet",
            label=f"{outcome.dataset} seed {run.seed} {run.method} {run.checkpoint} {name.removesuffix('.parquet')}",
            size=run.draw.unit,
            group=extractor,
            work=DrawnWork(extractor=extractor, images=path, inputs=store.plain(inputs)),
        )


def _identity(extractor: str) -> list[str | int]:
    return [STEPS["embed"].version, extractor, backbones.load(extractor).identity]


class EmbedWorker:
    """Worker of the step `embed`."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device, self._name = store.Store(root), device, ""

    def __call__(self, unit: Unit) -> Receipt:
        """Embeds the unit's images; an image that cannot be read goes to the unit's `rejected` file."""
        times, name = Stopwatch(self._device), unit.work.extractor
        if self._name != name:
            with malloc.importing():
                from bob.classifier.embedder import Embedder

                self._embedder = Embedder(name, device=self._device)
                self._embedder.load()
            self._name = name
        ids, class_ids, load = self._drawn(unit.work) if isinstance(unit.work, DrawnWork) else self._real(unit.work)
        with times("work"):
            rows, rejected = self._embedder(ids, class_ids, load)
        return commit(unit, rows, schema.FEATURES, rejected, self._store, times=times, note=self._embedder.note())

    def _drawn(self, work: DrawnWork) -> tuple[list[str], list[int], Callable[[int], Image.Image]]:
        table = self._store.read_checked(work.images, schema.IMAGES)
        contents = table["image"].to_pylist()
        return (
            table["request_id"].to_pylist(),
            table["class_id"].to_pylist(),
            lambda k: Image.open(io.BytesIO(contents[k])),
        )

    def _real(self, work: RealWork) -> tuple[list[str], list[int], Callable[[int], Image.Image]]:
        dataset, shots = datasets.load(work.dataset), work.shots
        return [shot.image_id for shot in shots], [shot.class_id for shot in shots], lambda k: dataset.open(shots[k])
