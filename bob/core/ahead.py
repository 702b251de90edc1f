"""Work on the CPU in threads, ahead of its use."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

__all__ = ["Ahead"]

Row = TypeVar("Row")
Result = TypeVar("Result")

_THREADS = min(4, os.cpu_count() or 1)


class Ahead(Generic[Row, Result]):
    """Results of a function for the rows of a sequence, made in threads while the rows before are in use.

    A context: at its end, work not begun is dropped.
    """

    def __init__(self, do: Callable[[Row], Result], rows: Sequence[Row], *, ahead: int) -> None:
        """Begins nothing yet.

        Args:
            do: called in a thread, once a row as a rule; again if the row is asked for after a later one.
            rows: the rows in the order of their use.
            ahead: number of rows that are begun beyond those asked for.
        """
        self._do, self._rows, self._ahead = do, rows, ahead
        self._threads = ThreadPoolExecutor(_THREADS)
        self._begun: dict[int, Future[Result]] = {}

    def __enter__(self) -> "Ahead[Row, Result]":
        return self

    def __exit__(self, *error: Any) -> None:
        self._threads.shutdown(cancel_futures=True)

    def __call__(self, positions: Sequence[int]) -> list[Result]:
        """Results of successive rows, and forgets those of the rows before.

        Args:
            positions: of the rows, one after the other, at least one.

        Raises:
            Exception: the error of the first row that raises one.
        """
        for k in [k for k in self._begun if k < positions[0]]:
            del self._begun[k]
        for k in range(positions[0], min(positions[-1] + 1 + self._ahead, len(self._rows))):
            if k not in self._begun:
                self._begun[k] = self._threads.submit(self._do, self._rows[k])
        return [self._begun[k].result() for k in positions]
