"""The features that distances are computed from, read back by class: `bob.steps.embed` makes them."""

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


def read(outcomes: Sequence[Outcome], artefacts: store.Store, *, extractor: str, against: str) -> list[Sets]:
    """The features that the units of `embed.units` have made, for each split.

    Raises:
        ValueError: if features are missing or damaged; says what to do.
    """
    made = []
    for some in embed.group_by_split(outcomes):
        name = embed.extractor_of(some, extractor)
        seen = _seen([unit.target for unit in embed.real_units(some, artefacts, name, against)], artefacts)
        dataset = datasets.load(some[0].run.dataset, some[0].run.descriptor)
        requests = tuple(
            read_images(artefacts, outcome.images, shard=lambda read: read.select(_KEPT)) for outcome in some
        )
        drawn = [
            _by_class(
                _seen([unit.target for unit in embed.drawn_units(outcome, artefacts, name)], artefacts),
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
