"""Features of images, for the distances between real and drawn ones (Figures 4 and 6)."""

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

__all__ = ["DrawnWork", "EmbedWorker", "RealWork", "alike", "drawn_units", "extractor_of", "real_units", "units"]

_REAL = "timm:inception_v3.tf_in1k"
"""The extractor of real pictures: 2,048 pooled features at 299 px. They are of FID's kind, but not those of its usual
network (pt_inception-2015-12-05): values are to be compared with each other, not with those of papers."""
_MINI = "resnet_mini"
"""That of skyworld: 128 features of a network that tells families of aircraft, backgrounds and poses apart."""
_UNIT = 250  # real images


@dataclass(frozen=True, kw_only=True)
class DrawnWork:
    """What the worker needs to embed a shard of drawn images."""

    extractor: str
    """A backbone, without its head."""
    images: str
    """The shard."""
    inputs: Any


@dataclass(frozen=True, kw_only=True)
class RealWork:
    """What the worker needs to embed real images."""

    extractor: str
    """A backbone, without its head."""
    dataset: str
    shots: tuple[Shot, ...]
    inputs: Any


def units(outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str, against: str) -> list[Unit]:
    """The units that measure runs: features of what each has drawn, and of the real images that it is held against.

    Args:
        outcomes: runs that have come to their images at least.
        artefacts: where these are kept.
        extractor: a backbone; empty: Inception v3, of skyworld's runs its own ResNet.
        against: the real images that are compared with: `train`, all that a class's shots were drawn from (at most
            twice as many as are drawn, the shots first), or `test`.

    Raises:
        ValueError: if there is no such extractor, or `against` is another.
    """
    wanted: dict[str, Unit] = {}
    for some in alike(outcomes):
        name = extractor_of(some, extractor)
        for unit in real_units(some, artefacts, name, against):
            wanted[unit.target] = unit
        for outcome in some:
            for unit in drawn_units(outcome, artefacts, name):
                wanted[unit.target] = unit
    return list(wanted.values())


def alike(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Those with images, each folder once, by their split."""
    drawn = list({outcome.images: outcome for outcome in reversed(outcomes) if outcome.images}.values())[::-1]
    if not drawn:
        raise ValueError("none of these runs draws images, so there is nothing to measure: add a method that does")
    return [[o for o in drawn if o.split == split] for split in dict.fromkeys(o.split for o in drawn)]


def extractor_of(outcomes: Sequence[Outcome], chosen: str) -> str:
    if chosen:
        return chosen
    return _MINI if all(checkpoints.settings(o.run.checkpoint).mini for o in outcomes) else _REAL


def real_units(outcomes: Sequence[Outcome], artefacts: store.Store, extractor: str, against: str) -> Iterator[Unit]:
    outcome = outcomes[0]
    shots = _shots(outcome, artefacts, against, most=2 * max(o.run.draw.per_class for o in outcomes))
    for start in range(0, len(shots), _UNIT):
        some = shots[start : start + _UNIT]
        inputs = [*_identity(extractor), outcome.dataset, [(s.image_id, s.sha1, s.class_id) for s in some]]
        name = store.slug(f"{outcome.dataset} {against} {extractor}")
        yield Unit(
            step="embed",
            target=f"features/{name}-{store.key(*inputs)}.parquet",
            label=f"{outcome.dataset} {against} side of classes {some[0].class_id} to {some[-1].class_id}",
            size=len(some),
            group=extractor,
            work=RealWork(
                extractor=extractor, dataset=outcome.run.dataset, shots=tuple(some), inputs=store.plain(inputs)
            ),
        )


def _shots(outcome: Outcome, artefacts: store.Store, against: str, *, most: int) -> list[Shot]:
    if against not in ("train", "test"):
        raise ValueError(f"images are compared with those of train or test, got {against!r}")
    split = [Shot(**row) for row in artefacts.read_checked(outcome.split, schema.SHOTS).to_pylist()]
    test = [shot for shot in split if shot.split == "test"]
    if against == "test":  # not as they are listed, where neighbours may be of one photographer
        return sorted(test, key=lambda shot: (shot.class_id, derive("embed", outcome.dataset, shot.image_id)))
    run: Run = outcome.run
    dataset = datasets.load(run.dataset, run.descriptor)
    return list(dataset.training_side(most=most, seed=run.seed, without={shot.image_id for shot in test}))


def drawn_units(outcome: Outcome, artefacts: store.Store, extractor: str) -> Iterator[Unit]:
    """One unit a shard. A shard's path says what is in it, but for what was rejected: `read` looks after that."""
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
    return [STEPS["embed"].version, extractor, backbones.load(extractor).revision]


class EmbedWorker:
    """The worker of these units."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device, self._name = store.Store(root), device, ""

    def __call__(self, unit: Unit) -> Receipt:
        """Embeds the unit's images; one that cannot be read goes to the unit's `rejected` file."""
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
