"""Measures of each class, as rows of schema.METRICS."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bob import store
from bob.core.types import Outcome
from bob.paper import metrics
from bob.paper.figures._features import Sets
from bob.store import schema

__all__ = ["ALL", "REAL", "contexts", "distances", "row", "values"]

Row = dict[str, Any]

_SETTINGS = ("checkpoint", "captioner", "shots")
"""Columns that `values` adds to a method's name where they differ."""

ALL = -1
"""Class id of a measure over all classes."""
REAL = "real"
"""Method of a measure of real images alone."""


def row(outcome: Outcome, class_id: int, metric: str, value: float, n: int, *, method: str = "") -> Row:
    """Returns a row of schema.METRICS.

    Args:
        outcome: outcome of the measured run.
        class_id: a class, or `ALL`.
        metric: a metric that `bob.paper.figures` lists.
        value: value in the metric's unit.
        n: number of images.
        method: `REAL`, or empty for the run's own.
    """
    run = outcome.run
    names = {shot.class_id: shot.class_name for shot in outcome.shots}
    return {
        "dataset": outcome.dataset,
        "shots": run.shots,
        "method": method or run.method,
        "checkpoint": "" if method else run.checkpoint,
        "captioner": run.captioner if outcome.captions and not method else "",
        "seed": run.seed,
        "images": "" if method else outcome.images,
        "class_id": class_id,
        "class_name": names.get(class_id, ""),
        "metric": metric,
        "value": value,
        "n": n,
    }


def distances(sets: Sets) -> Iterator[Row]:
    """Yields FID, KID and diversity of each run's images, and diversity and floors of the real images, class by class.

    Leaves out a class if a set has fewer than two images of it.
    """
    for class_id, real in sets.real.items():
        drawn = [features.get(class_id, np.zeros((0, 1))) for features in sets.drawn]
        n = min(len(features) for features in (real, *drawn))
        if n < 2:
            continue
        for outcome, features in zip(sets.outcomes, drawn, strict=True):
            yield row(outcome, class_id, "fid", metrics.fid(real[:n], features[:n]), n)
            yield row(outcome, class_id, "kid", metrics.kid(real[:n], features[:n]), n)
            yield row(outcome, class_id, "diversity", metrics.diversity(features[:n]), n)
        first, half = sets.outcomes[0], min(n, len(real) // 2)
        yield row(first, class_id, "diversity", metrics.diversity(real[:n]), n, method=REAL)
        if half > 1:
            one, other = real[:half], real[half : 2 * half]
            yield row(first, class_id, "fid_floor", metrics.fid(one, other), half, method=REAL)
            yield row(first, class_id, "kid_floor", metrics.kid(one, other), half, method=REAL)


def contexts(sets: Sets, artefacts: store.Store) -> Iterator[Row]:
    """Yields the entropy of the requested contexts and of those read in the shots, and the leakage of the latter."""
    for outcome, requests in zip(sets.outcomes, sets.requests, strict=True):
        requested: dict[int, list[tuple[str, str]]] = {}
        for request in requests.to_pylist():
            if request["background"] or request["pose"]:
                requested.setdefault(request["class_id"], []).append((request["background"], request["pose"]))
        for class_id, pairs in sorted(requested.items()):
            yield row(outcome, class_id, "context_entropy", metrics.entropy(pairs), len(pairs))
    for captions, outcome in {o.captions: o for o in reversed(sets.outcomes) if o.captions}.items():
        table = pa.concat_tables([artefacts.read_checked(path, schema.CAPTIONS) for path in captions])
        by_image = {caption["image_id"]: caption for caption in table.to_pylist()}
        for class_id in dict.fromkeys(shot.class_id for shot in outcome.shots):
            ids = [shot.image_id for shot in outcome.shots if shot.class_id == class_id]
            shots = [by_image[image_id] for image_id in ids if image_id in by_image]
            if not shots:  # no caption of this class was accepted
                continue
            pairs = [(shot["background"], shot["pose"]) for shot in shots]
            leaked = sum(shot["leaked"] for shot in shots) / len(shots)
            columns = {"captioner": outcome.run.captioner}
            yield row(outcome, class_id, "context_entropy", metrics.entropy(pairs), len(shots), method=REAL) | columns
            yield row(outcome, class_id, "leakage", leaked, len(shots), method=REAL) | columns


def values(rows: Sequence[Row], metric: str) -> dict[str, dict[tuple[str, int], float]]:
    """Averages one metric over seeds: method -> (data set, class id) -> mean.

    Where checkpoints, captioners or numbers of shots differ, they follow the method's name; where other settings
    differ, the key of the images does.
    """
    chosen = [measure for measure in rows if measure["metric"] == metric]
    differing = [k for k in _SETTINGS if len({measure[k] for measure in chosen if measure[k]}) > 1]
    folders: dict[tuple, set[str]] = {}
    for measure in chosen:
        settings = (measure["dataset"], measure["method"], measure["seed"], *(measure[k] for k in _SETTINGS))
        folders.setdefault(settings, set()).add(measure["images"])
    tagged = any(len(keys) > 1 for keys in folders.values())
    by_method: dict[str, dict[tuple[str, int], list[float]]] = {}
    for measure in chosen:
        tags = [f"{measure[k]}-shot" if k == "shots" else measure[k] for k in differing if measure[k]]
        tags += [measure["images"].rpartition("-")[2][:6]] * (tagged and bool(measure["images"]))
        name = f"{measure['method']} ({', '.join(tags)})" if tags else measure["method"]
        by_method.setdefault(name, {}).setdefault((measure["dataset"], measure["class_id"]), []).append(
            measure["value"]
        )
    return {name: {place: float(np.mean(v)) for place, v in places.items()} for name, places in by_method.items()}
