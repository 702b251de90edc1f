"""Features that distances are computed from: the units that compute them, and reading them back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from bob import backbones, datasets, store
from bob.core.seeds import derive
from bob.core.settings import Run
from bob.core.step_table import STEPS
from bob.core.types import Outcome, Shot, Unit
from bob.diffusion import checkpoints
from bob.store import schema
from bob.store.images import read_images

__all__ = ["Sets", "read", "units"]

_REAL = "timm:inception_v3.tf_in1k"
"""The extractor of real pictures: 2,048 pooled features at 299 px. They are of FID's kind, but not those of its usual
network (pt_inception-2015-12-05): values are to be compared with each other, not with those of papers."""
_MINI = "resnet_mini"
"""That of skyworld: 128 features of a network that tells families of aircraft, backgrounds and poses apart."""
_UNIT = 250  # real images
_KEPT = ["request_id", "class_id", "index", "background", "pose"]

ByClass = dict[int, np.ndarray]
"""Class id -> features, float32 (n, width), in the order of drawing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """Features of the runs of one split: what they are held against, and what each has drawn."""

    outcomes: tuple[Outcome, ...]
    """Those with images."""
    class_names: tuple[str, ...]
    real: ByClass
    drawn: tuple[ByClass, ...]
    """In the order of `outcomes`."""
    requests: tuple[pa.Table, ...]
    """Likewise: request_id, class_id, index, background and pose of each image."""


def units(outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str, against: str) -> list[Unit]:
    """What `read` wants there.

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
    for some in _alike(outcomes):
        name = _extractor(some, extractor)
        for unit in _real(some, artefacts, name, against):
            wanted[unit.target] = unit
        for outcome in some:
            for unit in _drawn(outcome, artefacts, name):
                wanted[unit.target] = unit
    return list(wanted.values())


def read(outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str, against: str) -> list[Sets]:
    """The features that the units of `units` have made, for each split.

    Raises:
        ValueError: if features are missing or damaged; says what to do.
    """
    made = []
    for some in _alike(outcomes):
        name = _extractor(some, extractor)
        seen = _seen([unit.target for unit in _real(some, artefacts, name, against)], artefacts)
        dataset = datasets.load(some[0].run.dataset, some[0].run.descriptor)
        requests = tuple(
            read_images(artefacts, outcome.images, shard=lambda read: read.select(_KEPT)) for outcome in some
        )
        drawn = [
            _by_class(
                _seen([unit.target for unit in _drawn(outcome, artefacts, name)], artefacts),
                kept["request_id"].to_pylist(),
            )
            for outcome, kept in zip(some, requests, strict=True)
        ]
        made.append(
            Sets(
                outcomes=tuple(some),
                class_names=dataset.class_names,
                real=_by_class(seen, list(seen)),
                drawn=tuple(drawn),
                requests=requests,
            )
        )
    return made


def _alike(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Those with images, each folder once, by their split."""
    drawn = list({outcome.images: outcome for outcome in reversed(outcomes) if outcome.images}.values())[::-1]
    if not drawn:
        raise ValueError("none of these runs draws images, so there is nothing to measure: add a method that does")
    return [[o for o in drawn if o.split == split] for split in dict.fromkeys(o.split for o in drawn)]


def _extractor(outcomes: Sequence[Outcome], chosen: str) -> str:
    if chosen:
        return chosen
    return _MINI if all(checkpoints.settings(o.run.checkpoint).mini for o in outcomes) else _REAL


def _real(outcomes: Sequence[Outcome], artefacts: store.Store, extractor: str, against: str) -> Iterator[Unit]:
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
            work={
                "extractor": extractor,
                "dataset": outcome.run.dataset,
                "shots": [asdict(shot) for shot in some],
                "inputs": store.plain(inputs),
            },
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


def _drawn(outcome: Outcome, artefacts: store.Store, extractor: str) -> Iterator[Unit]:
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
            work={"extractor": extractor, "images": path, "inputs": inputs},
        )


def _identity(extractor: str) -> list[str | int]:
    return [STEPS["embed"], extractor, backbones.load(extractor).revision]


def _seen(targets: Sequence[str], artefacts: store.Store) -> dict[str, tuple[int, np.ndarray] | None]:
    """Image -> (class id, features), or None where it was rejected, which `pipeline.measure` has counted."""
    found: dict[str, tuple[int, np.ndarray] | None] = {}
    for target in targets:
        table, beside = artefacts.read_checked(target, schema.FEATURES), store.quarantine(target)
        rows = table["features"].combine_chunks().flatten().to_numpy().reshape(max(1, len(table)), -1)
        ids, classes = table["id"].to_pylist(), table["class_id"].to_pylist()
        found |= {name: (k, row) for name, k, row in zip(ids, classes, rows[: len(ids)], strict=True)}
        if artefacts.exists(beside):
            found |= dict.fromkeys(artefacts.read_checked(beside, schema.REJECTED)["row_id"].to_pylist())
    return found


def _by_class(seen: Mapping[str, tuple[int, np.ndarray] | None], names: Sequence[str]) -> ByClass:
    if lost := [name for name in names if name not in seen]:
        raise ValueError(
            f"features of {len(lost)} images are missing, {lost[0]} among them, which were drawn after the others:"
            " delete the folder features/, and the same command makes it again"
        )
    rows: dict[int, list[np.ndarray]] = {}
    for class_id, features in filter(None, (seen[name] for name in names)):
        rows.setdefault(class_id, []).append(features)
    return {class_id: np.stack(some) for class_id, some in sorted(rows.items())}
