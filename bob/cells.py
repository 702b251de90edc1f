"""Runs before their first step: which images they are trained and judged on."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bob import datasets, methods, schema, splits, store, units
from bob.budget import budget, groups
from bob.datasets import Dataset
from bob.settings import Run
from bob.types import Shot, TrainingSet
from bob.units import Cell

__all__ = ["begin", "leave_out", "split"]

_SHOTS = 5
"""Training images per class where neither the user nor the data set says how many."""


def split(run: Run, artefacts: store.Store) -> Cell:
    """Draws the split of a run or takes the one it names, writes its table and checks that each shot can be opened."""
    dataset = datasets.load(run.dataset, run.descriptor)
    made, shots = begin(run, dataset)
    if not artefacts.exists(made.split):
        for shot in shots:
            if shot.split != "test" or not shot.width:  # a test picture only where its header is broken
                dataset.open(shot)
    _write_split(made.split, shots, _origin(run, dataset), artefacts)
    return made


def begin(run: Run, dataset: Dataset) -> tuple[Cell, tuple[Shot, ...]]:
    """A run before its first step, and its split: train, val and test. Writes nothing.

    Raises:
        ValueError: if the data set has too few images, or the file of the split does not fit it.
    """
    method = methods.load(run.method)
    shots, run = _drawn(run, dataset)
    path = _split_path(run, shots, _origin(run, dataset))
    train = tuple(shot for shot in shots if shot.split == "train")
    of_class = Counter(shot.class_id for shot in train)
    counts = [of_class[class_id] for class_id in range(len(dataset.class_names))]
    training = TrainingSet(
        dataset=dataset.name,
        descriptor=dataset.descriptor,
        class_names=dataset.class_names,
        shots=train,
        budget=budget(counts, per_class=run.draw.per_class, long_tail=dataset.medium is not None),
    )
    by_size = groups(counts, medium=dataset.medium) if dataset.medium else {}
    return Cell(run, method, path, training, groups=by_size), shots


def _origin(run: Run, dataset: Dataset) -> dict[str, Any]:
    return {"dataset": dataset.name, "seed": run.seed, "class_names": dataset.class_names}


def _drawn(run: Run, dataset: Dataset) -> tuple[tuple[Shot, ...], Run]:
    """The split, and the run with what the data set or the file of the split decides about it."""
    run = dataclasses.replace(run, dataset=dataset.address, val=run.val or dataset.val)
    if not run.splits:
        shots = 0 if dataset.medium else run.shots or _SHOTS
        return dataset.split(shots=shots, val=run.val, seed=run.seed), dataclasses.replace(run, shots=shots)
    given = splits.read(Path(run.splits).expanduser(), dataset, val=run.val, seed=run.seed)
    most = max(Counter(shot.class_id for shot in given if shot.split == "train").values())
    if run.shots not in (0, most):
        raise ValueError(f"{run.splits} gives {most} shots per class, not {run.shots}: leave --shots out")
    return given, dataclasses.replace(run, shots=0 if dataset.medium else most)


def _split_path(run: Run, shots: Sequence[Shot], origin: Mapping[str, Any]) -> str:
    identity = store.key([(s.image_id, s.sha1, s.class_id, s.split) for s in shots], origin["class_names"])
    return f"shots/{store.slug(origin['dataset'])}-{run.setting}-{identity}.parquet"


def _write_split(path: str, shots: Sequence[Shot], origin: Mapping[str, Any], artefacts: store.Store) -> None:
    """Unless an earlier command has; its table may have been damaged since."""
    if artefacts.exists(path):
        artefacts.read_checked(path, schema.SHOTS, least=len(shots))
        return
    table = schema.table([dataclasses.asdict(shot) for shot in shots], schema.SHOTS)
    artefacts.write_table(path, table, store.provenance(origin))


def leave_out(cell: Cell, artefacts: store.Store) -> None:
    """Takes the shots without a caption out of a run that wants captions, out of its classifier's real images too."""
    run, training = cell.run, cell.training
    kept = tuple(shot for shot in training.shots if shot.image_id in training.contexts)
    if not cell.method.needs_captions or len(kept) == len(training.shots):
        return
    name = units.label(cell, "method")
    if bare := set(training.class_names) - {shot.class_name for shot in kept}:
        raise ValueError(
            f"{name}: no shot of class {min(bare)!r} has a caption, but each class needs one: mend its pictures, delete"
            f" the *.rejected.parquet files in {artefacts.place('captions')} and the tables beside them, and run it"
            " again"
        )
    rows = [Shot(**row) for row in artefacts.read_checked(cell.split, schema.SHOTS).to_pylist()]
    shots = [shot for shot in rows if shot.split != "train" or shot.image_id in training.contexts]
    origin = {"dataset": training.dataset, "seed": run.seed, "class_names": training.class_names}
    cell.split = _split_path(run, shots, origin)
    _write_split(cell.split, shots, origin, artefacts)
    cell.training = dataclasses.replace(training, shots=kept)
    left = len(training.shots) - len(kept)
    print(f"{name}: goes on without {left} of its {len(training.shots)} shots, which have no caption", flush=True)
