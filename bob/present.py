"""What runs have come to so far, told from what is there: nothing is made, and nothing written."""

from collections.abc import Iterator, Sequence

from bob import files, pipeline, store
from bob.settings import Run
from bob.types import Outcome, Receipt, Unit

__all__ = ["outcomes"]


def outcomes(runs: Sequence[Run], artefacts: store.Store) -> list[Outcome]:
    """What each run has come to, in their order; one that is not done has neither images nor `final`.

    Raises:
        ValueError: as `pipeline.execute`, but for rejected rows.
    """
    untouched = _Untouched(artefacts.root)
    return [_outcome(run, untouched) for run in runs]


def _outcome(run: Run, untouched: store.Store) -> Outcome:
    try:
        [found] = pipeline.execute(
            [run],
            artefacts=untouched,
            executor=_nothing,
            report=lambda step, todo, done, receipts: receipts,
            max_rejected=10**9,
        )
        if untouched.exists(found.final):
            return found
    except FileNotFoundError:  # what a step reads of the one before it
        pass
    return pipeline.begun(run, untouched)


def _nothing(step: str, units: Sequence[Unit], artefacts: store.Store) -> Iterator[Receipt]:
    return iter(())


class _Untouched(store.Store):
    """A store where all stays as it is."""

    def _create(self, path: str, fill: files.Fill) -> None: ...

    def delete(self, path: str) -> None:
        """Not even that."""

    def clear_stale(self, *, age: float = 0.0) -> int:
        """None."""
        return 0
