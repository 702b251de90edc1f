"""Outcomes of runs, resolved from the store without writing."""

from collections.abc import Sequence

from bob import pipeline, store
from bob.core.settings import Run
from bob.core.types import Outcome
from bob.pipeline.splits import Splits, begin
from bob.pipeline.walk import walk
from bob.store import schema

__all__ = ["outcomes"]


def outcomes(runs: Sequence[Run], artefacts: store.Store) -> list[Outcome]:
    """Returns the outcome of each run, in their order; an unfinished run has neither images nor `final`.

    Raises:
        ValueError: as `pipeline.execute`, except about rejected rows.
    """
    pipeline.check(runs, artefacts=artefacts)
    splits = Splits()
    return [_outcome(run, splits, artefacts) for run in runs]


def _outcome(run: Run, splits: Splits, artefacts: store.Store) -> Outcome:
    cell = begin(run, splits(run))
    begun = pipeline.outcome(cell)
    if artefacts.exists(cell.split):
        artefacts.read_checked(cell.split, schema.SHOTS, least=len(cell.images_of_split))
    for _ in walk([cell], artefacts, writes=False):
        if cell.provisional:
            return begun
    return pipeline.outcome(cell) if artefacts.exists(cell.final) else begun
