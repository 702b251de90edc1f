"""Features for distances between image sets, made by `bob.steps.embed` and read by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bob import datasets, store
from bob.core.types import Outcome
from bob.steps import embed
from bob.store import schema
from bob.store.images import read_images

__all__ = ["Sets", "read"]

_COLUMNS = ["request_id", "class_id", "index", "background", "pose"]

ByClass = dict[int, np.ndarray]
"""Class id -> features, float32 (n, width), in the order of drawing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """Features of one split's real images and of each run's images."""

    outcomes: tuple[Outcome, ...]
    """Outcomes with images."""
    class_names: tuple[str, ...]
    real: ByClass
    drawn: tuple[ByClass, ...]
    """Features of each run's images, in the order of `outcomes`."""
    requests: tuple[pa.Table, ...]
    """request_id, class_id, index, background and pose of each image, in the order of `outcomes`."""


def read(outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str, against: str) -> list[Sets]:
    """Reads the features that the units of `embed.units` made, one `Sets` per split.

    Raises:
        ValueError: if features are missing or damaged; says what to do.
    """
    sets = []
    for group in embed.group_by_split(outcomes):
        name = embed.extractor_of(group, extractor)
        real = _read_features([unit.target for unit in embed.real_units(group, artefacts, name, against)], artefacts)
        dataset = datasets.load(group[0].run.dataset, group[0].run.descriptor)
        requests = tuple(
            read_images(artefacts, outcome.images, shard=lambda table: table.select(_COLUMNS)) for outcome in group
        )
        drawn = [
            _by_class(
                _read_features([unit.target for unit in embed.drawn_units(outcome, artefacts, name)], artefacts),
                table["request_id"].to_pylist(),
            )
            for outcome, table in zip(group, requests, strict=True)
        ]
        sets.append(
            Sets(
                outcomes=tuple(group),
                class_names=dataset.class_names,
                real=_by_class(real, list(real)),
                drawn=tuple(drawn),
                requests=requests,
            )
        )
    return sets


def _read_features(targets: Sequence[str], artefacts: store.Store) -> dict[str, tuple[int, np.ndarray] | None]:
    """Returns image -> (class id, features), or None for a rejected image, which `pipeline.measure` counts."""
    features: dict[str, tuple[int, np.ndarray] | None] = {}
    for target in targets:
        table, quarantine = artefacts.read_checked(target, schema.FEATURES), store.quarantine(target)
        rows = table["features"].combine_chunks().flatten().to_numpy().reshape(max(1, len(table)), -1)
        ids, classes = table["id"].to_pylist(), table["class_id"].to_pylist()
        features |= {name: (k, row) for name, k, row in zip(ids, classes, rows[: len(ids)], strict=True)}
        if artefacts.exists(quarantine):
            features |= dict.fromkeys(artefacts.read_checked(quarantine, schema.REJECTED)["row_id"].to_pylist())
    return features


def _by_class(features: Mapping[str, tuple[int, np.ndarray] | None], names: Sequence[str]) -> ByClass:
    if absent := [name for name in names if name not in features]:
        raise ValueError(
            f"features of {len(absent)} images are missing, {absent[0]} among them, which were drawn after the others:"
            " delete the folder features/, and the same command makes it again"
        )
    rows: dict[int, list[np.ndarray]] = {}
    for class_id, row in filter(None, (features[name] for name in names)):
        rows.setdefault(class_id, []).append(row)
    return {class_id: np.stack(rows[class_id]) for class_id in sorted(rows)}
