"""Rows in batches that shrink where memory runs out, and that leave out the rows that cannot be done."""

import functools
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

__all__ = ["Batches", "is_out_of_memory", "release"]

Row = TypeVar("Row")
Made = TypeVar("Made")

_WORDS = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED")
_SETUP = (ImportError, OSError, torch.AcceleratorError)
"""What no row is to blame for: a library, a file or connection, a device that is lost to the process."""


class Batches:
    """How many rows a worker does at once: what it is asked for, until that has once not fitted."""

    def __init__(self, what: str) -> None:
        self._what, self._fits, self._news = what, sys.maxsize, ""

    def map(self, rows: Sequence[Row], do: Callable[[Sequence[Row]], Made], *, size: int) -> Iterator[Made]:
        """What `do` makes of each batch, in order. A batch that does not fit is halved, and so are all later ones.

        Args:
            rows: anything that can be sliced.
            do: a batch -> anything but None; is called again where memory ran out.
            size: rows of a batch, at most.

        Raises:
            ValueError: if memory does not hold a single row; says what to do.
        """
        done = 0
        while done < len(rows):
            some = rows[done : done + min(size, self._fits)]
            made = self._attempt(some, do)
            if made is None:
                release()
            else:
                done += len(some)
                yield made

    def each(self, rows: Sequence[Row], do: Callable[[Sequence[Row]], Sequence[Made]], *, size: int) -> list:
        """What `do` makes of each row, or the exception that it raised over this row alone.

        Args:
            rows: anything that can be sliced.
            do: a batch -> one result a row; where it raises, it is called again row by row.
            size: rows of a batch, at most.

        Raises:
            ValueError: if memory does not hold a single row; says what to do.
            Exception: what no row is to blame for: a library, a file or connection, a lost device, or
                whatever is raised over every single one of several rows.
        """
        made = [one for some in self.map(rows, functools.partial(_apart, do), size=size) for one in some]
        faults = [one for one in made if isinstance(one, Exception)]
        if len(faults) == len(rows) > 1:
            raise faults[0]
        return made

    def note(self) -> str:
        """A few words on what has been halved since this was last asked; empty if nothing was."""
        news, self._news = self._news, ""
        return news

    def _attempt(self, some: Sequence[Row], do: Callable[[Sequence[Row]], Made]) -> Made | None:
        """None where memory ran out."""
        try:
            return do(some)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(some) == 1:
                words = str(error).strip().partition("\n")[0] or type(error).__name__
                raise ValueError(
                    f"{self._what} runs out of memory even one at a time ({words}): use a smaller checkpoint, or give"
                    " the process more memory"
                ) from error
        self._fits = len(some) // 2
        self._news = f"out of memory, so {self._what} {self._fits} at once from here on"
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory of a GPU or of the CPU was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def _apart(do: Callable[[Sequence[Row]], Sequence[Made]], some: Sequence[Row]) -> Sequence[Made | Exception]:
    try:
        return do(some)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, _SETUP):
            raise
        if len(some) == 1:
            return [error]
    return [made for k in range(len(some)) for made in _apart(do, some[k : k + 1])]


def release() -> None:
    """Gives back what the batch that failed has left behind."""
    gc.collect()  # tracebacks and what they hold go round in circles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
