"""Splits: the images that a run is trained, validated and tested on."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bob import datasets, methods, store
from bob.core.budget import budget, groups
from bob.core.settings import Run
from bob.core.types import Shot, TrainingSet
from bob.datasets import Dataset, _split_file
from bob.steps.cell import Cell, label
from bob.store import schema, tables

__all__ = ["Split", "Splits", "begin", "drop_uncaptioned", "split"]

_SHOTS = 5
"""Default number of training images per class, for a data set without its own."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A data set's training, validation and test images."""

    dataset: Dataset
    shots: tuple[Shot, ...]
    path: str
    """Path of the split's table."""
    count: int
    """Training images per class; 0: the data set's own."""
    val: int
    """Validation images per class."""


class Splits:
    """The splits of one command, each drawn once and shared by its runs."""

    def __init__(self, load: Callable[[str, str], Dataset] = datasets.load) -> None:
        self._load, self._drawn = functools.cache(load), dict[Any, Split]()
        self.written = set[str]()
        """Paths of the splits in the store."""

    def __call__(self, run: Run) -> Split:
        """Returns a run's split, drawn by the data set or read from the run's file.

        Raises:
            ValueError: if the data set has too few images, or the file does not fit it.
        """
        identity = run.dataset, run.descriptor, run.shots, run.val, run.seed, run.splits
        if identity not in self._drawn:
            self._drawn[identity] = _draw(run, self._load(run.dataset, run.descriptor))
        return self._drawn[identity]


def split(run: Run, artefacts: store.Store, splits: Splits | None = None) -> Cell:
    """Writes a run's split, after checking that each shot can be opened, and returns the run's cell.

    Args:
        run: the run.
        artefacts: the store of the split.
        splits: the splits of the command; None where this is its only run.

    Raises:
        ValueError: as `Splits` does, or if a picture cannot be opened; names it.
    """
    splits = splits or Splits()
    drawn = splits(run)
    if drawn.path not in splits.written:
        if not artefacts.exists(drawn.path):
            for shot in drawn.shots:
                if shot.split != "test" or not shot.width:  # of test pictures only those with a broken header
                    drawn.dataset.open(shot)
        _write_split(drawn.path, drawn.shots, _origin(run, drawn.dataset), artefacts)
        splits.written.add(drawn.path)
    return begin(run, drawn)


def begin(run: Run, drawn: Split) -> Cell:
    """Returns a run's cell before the first step. Writes nothing."""
    dataset, method = drawn.dataset, methods.load(run.method)
    run = dataclasses.replace(run, dataset=dataset.address, val=drawn.val, shots=drawn.count)
    train = tuple(shot for shot in drawn.shots if shot.split == "train")
    per_class = Counter(shot.class_id for shot in train)
    counts = [per_class[class_id] for class_id in range(len(dataset.class_names))]
    training = TrainingSet(
        dataset=dataset.name,
        descriptor=dataset.descriptor,
        superclass=dataset.superclass or dataset.descriptor,
        class_names=dataset.class_names,
        shots=train,
        budget=budget(counts, per_class=run.draw.per_class, long_tail=dataset.medium is not None),
    )
    class_groups = groups(counts, medium=dataset.medium) if dataset.medium else {}
    return Cell(run, method, drawn.path, drawn.shots, training, groups=class_groups)


def _origin(run: Run, dataset: Dataset) -> dict[str, Any]:
    return {"dataset": dataset.name, "seed": run.seed, "class_names": dataset.class_names}


def _draw(run: Run, dataset: Dataset) -> Split:
    val, count = run.val or dataset.val, 0 if dataset.medium else run.shots or _SHOTS
    if not run.splits:
        shots = dataset.split(shots=count, val=val, seed=run.seed)
    else:
        shots = _split_file.read(Path(run.splits).expanduser(), dataset, val=val, seed=run.seed)
        most = max(Counter(shot.class_id for shot in shots if shot.split == "train").values())
        if run.shots not in (0, most):
            raise ValueError(f"{run.splits} gives {most} shots per class, not {run.shots}: leave --shots out")
        count = 0 if dataset.medium else most
    path = _split_path(dataclasses.replace(run, shots=count), shots, _origin(run, dataset))
    return Split(dataset=dataset, shots=shots, path=path, count=count, val=val)


def _split_path(run: Run, shots: Sequence[Shot], origin: Mapping[str, Any]) -> str:
    identity = store.key([(s.image_id, s.sha1, s.class_id, s.split) for s in shots], origin["class_names"])
    return f"shots/{store.slug(origin['dataset'])}-{run.setting}-{identity}.parquet"


def _write_split(path: str, shots: Sequence[Shot], origin: Mapping[str, Any], artefacts: store.Store) -> None:
    """Writes a split's table; only checks it where it exists, since it may have been damaged."""
    if artefacts.exists(path):
        artefacts.read_checked(path, schema.SHOTS, least=len(shots))
        return
    table = tables.from_rows([dataclasses.asdict(shot) for shot in shots], schema.SHOTS)
    artefacts.write_table(path, table, store.provenance(origin))


def drop_uncaptioned(cell: Cell, artefacts: store.Store, *, writes: bool = True, tell: bool = True) -> None:
    """Removes shots without a caption from a run that needs captions, also from its classifier's real images.

    Args:
        cell: the run, its contexts filled in.
        artefacts: the store of the smaller split.
        writes: whether that split is written.
        tell: whether a line says how many shots were removed.

    Raises:
        ValueError: if a class is left without a shot.
    """
    run, training = cell.run, cell.training
    kept = tuple(shot for shot in training.shots if shot.image_id in training.contexts)
    if not cell.method.needs_captions or len(kept) == len(training.shots):
        return
    name = label(cell, "method")
    if uncaptioned := set(training.class_names) - {shot.class_name for shot in kept}:
        raise ValueError(
            f"{name}: no shot of class {min(uncaptioned)!r} has a caption, but each class needs one: mend its"
            f" pictures, delete the *.rejected.parquet files in {artefacts.place('captions')} and the tables beside"
            " them, and run it again"
        )
    shots = [shot for shot in cell.images_of_split if shot.split != "train" or shot.image_id in training.contexts]
    origin = {"dataset": training.dataset, "seed": run.seed, "class_names": training.class_names}
    cell.split = _split_path(run, shots, origin)
    if writes:
        _write_split(cell.split, shots, origin, artefacts)
    cell.training = dataclasses.replace(training, shots=kept)
    if tell:
        count = f"{len(training.shots) - len(kept)} of its {len(training.shots)} shots"
        print(f"{name}: goes on without {count}, which have no caption", flush=True)
