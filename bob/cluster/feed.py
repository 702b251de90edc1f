"""Order in which Ray Tune starts trainings: longest first, and a final one as soon as its own run's sweep is done.

It starts them by trials, each a group of points of one run's sweep, or one training.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from bob.core.types import Unit
from bob.steps.classify import FinalWork
from bob.steps.sweep_group import groups
from bob.steps.workers import packed

__all__ = ["Feed", "longest_first"]


def longest_first(unit: Unit) -> tuple[float, str]:
    """Sort key: by falling cost, so that no long training starts last; equal ones by run."""
    return -unit.size * unit.work.cost, unit.group


class Feed(Searcher):
    """Suggests each training once; Tune's search algorithm.

    A final training reads the tables of its run's sweep. It is suggested when those that are made here are done, while
    other runs still sweep; a sweep's training counts with the final one that waits for it. All methods are
    called in Tune's thread.
    """

    def __init__(self, units: Sequence[Unit], *, points: Callable[[Unit], int] = lambda unit: 1) -> None:
        """Groups the trainings.

        Args:
            units: the trainings.
            points: most points of a run's sweep that one process trains together, of which a unit is one.
        """
        super().__init__()
        self.trials, self.left = groups(sorted(units, key=longest_first), size=points), list[Unit]()
        here = {unit.target for unit in units}
        self._ready, self._needs = list[tuple[float, str, int]](), dict[int, set[str]]()
        finals = [unit for unit in units if isinstance(unit.work, FinalWork)]
        self._after = {target: longest_first(unit)[0] for unit in finals for target in unit.work.receipts}
        for number, trial in enumerate(self.trials):
            receipts = trial[0].work.receipts if isinstance(trial[0].work, FinalWork) else ()
            self._needs[number] = here.intersection(receipts)
            self._release(number)

    @property
    def targets(self) -> list[str]:
        """Of all trainings."""
        return [unit.target for trial in self.trials for unit in trial]

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its search algorithm into its scratch folder, and nobody reads it

    def _release(self, number: int) -> None:
        if not self._needs[number]:
            del self._needs[number]
            trial = self.trials[number]
            cost = sum(longest_first(unit)[0] for unit in trial) + self._after.get(trial[0].target, 0.0)
            heapq.heappush(self._ready, (cost, trial[0].group, number))

    def done(self, target: str) -> None:
        """Notes that a training's table is there."""
        for number in self._waiting(target):
            self._needs[number].remove(target)
            self._release(number)

    def drop(self, target: str) -> None:
        """Notes that a training will have no table: those that need it are `left`, and not suggested."""
        for number in self._waiting(target):
            del self._needs[number]
            self.left += self.trials[number]

    def _waiting(self, target: str) -> list[int]:
        return [number for number, needs in self._needs.items() if target in needs]

    def suggest(self, trial_id: str) -> dict[str, list[str]] | str | None:
        """Called by Tune: the next trial's packed units, None while only those are left that wait for others."""
        if self._ready:
            return {"units": [packed(unit) for unit in self.trials[heapq.heappop(self._ready)[-1]]]}
        return None if self._needs else Searcher.FINISHED

    def set_search_properties(self, *given: Any, **more: Any) -> bool:
        """Called by Tune with the metric and the space to search, of which nothing is needed."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Called by Tune; `done` says that the table is written, too."""

    def save(self, checkpoint_path: str) -> None:
        """Called by Tune; its state is scratch."""
