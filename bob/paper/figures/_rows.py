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

_APART = ("checkpoint", "captioner", "shots")

ALL = -1
"""The class id of what is over all classes."""
REAL = "real"
"""The method of what is measured of real images alone."""


def row(outcome: Outcome, class_id: int, metric: str, value: float, n: int, *, method: str = "") -> Row:
    """A row of schema.METRICS.

    Args:
        outcome: the run that it is of.
        class_id: a class, or `ALL`.
        metric: one of those that `bob.paper.figures` lists.
        value: in that metric's unit.
        n: images.
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
    """FID, KID and diversity of what each run has drawn, and the floor of the real images, class by class.

    A class of which a set has fewer than two images is left out.
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
    """Entropy of contexts: those that were asked for, and those read in the shots; leakage of the latter."""
    for outcome, requests in zip(sets.outcomes, sets.requests, strict=True):
        asked: dict[int, list[tuple[str, str]]] = {}
        for request in requests.to_pylist():
            if request["background"] or request["pose"]:
                asked.setdefault(request["class_id"], []).append((request["background"], request["pose"]))
        for class_id, pairs in sorted(asked.items()):
            yield row(outcome, class_id, "context_entropy", metrics.entropy(pairs), len(pairs))
    for captions, outcome in {o.captions: o for o in reversed(sets.outcomes) if o.captions}.items():
        read = pa.concat_tables([artefacts.read_checked(path, schema.CAPTIONS) for path in captions]).to_pylist()
        answers = {answer["image_id"]: answer for answer in read}
        for class_id in dict.fromkeys(shot.class_id for shot in outcome.shots):
            shots = [answers[s.image_id] for s in outcome.shots if s.class_id == class_id and s.image_id in answers]
            if not shots:  # no caption of this class was accepted
                continue
            pairs, by = [(shot["background"], shot["pose"]) for shot in shots], {"captioner": outcome.run.captioner}
            leaked = sum(shot["leaked"] for shot in shots) / len(shots)
            yield row(outcome, class_id, "context_entropy", metrics.entropy(pairs), len(shots), method=REAL) | by
            yield row(outcome, class_id, "leakage", leaked, len(shots), method=REAL) | by


def values(rows: Sequence[Row], metric: str) -> dict[str, dict[tuple[str, int], float]]:
    """Method -> (data set, class id) -> the mean over the seeds, of one metric.

    Methods that come with several checkpoints, captioners or numbers of shots are called by these too, and by the key
    of their images where still others differ.
    """
    chosen = [measure for measure in rows if measure["metric"] == metric]
    apart = [k for k in _APART if len({measure[k] for measure in chosen if measure[k]}) > 1]
    alike: dict[tuple, set[str]] = {}
    for measure in chosen:
        alike.setdefault(
            (measure["dataset"], measure["method"], measure["seed"], *(measure[k] for k in _APART)), set()
        ).add(measure["images"])
    tagged = any(len(folders) > 1 for folders in alike.values())
    by_method: dict[str, dict[tuple[str, int], list[float]]] = {}
    for measure in chosen:
        more = [f"{measure[k]}-shot" if k == "shots" else measure[k] for k in apart if measure[k]]
        more += [measure["images"].rpartition("-")[2][:6]] * (tagged and bool(measure["images"]))
        name = f"{measure['method']} ({', '.join(more)})" if more else measure["method"]
        by_method.setdefault(name, {}).setdefault((measure["dataset"], measure["class_id"]), []).append(
            measure["value"]
        )
    return {name: {place: float(np.mean(v)) for place, v in places.items()} for name, places in by_method.items()}
