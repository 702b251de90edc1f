"""Batches whose size is halved when memory runs out, and isolation of the rows that raise an error."""

import functools
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

__all__ = [
    "AdaptiveBatcher",
    "CrowdedOut",
    "comes_of_memory",
    "free_memory",
    "is_lost_device",
    "is_out_of_memory",
    "release",
]

Row = TypeVar("Row")
Result = TypeVar("Result")

_WORDS = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED")
_SETUP = (ImportError, OSError, torch.AcceleratorError)
"""Errors that no row causes: a missing library, a file or connection, a device that the process has lost."""


class CrowdedOut(RuntimeError):
    """Memory ran out beside other processes on the same device, so that the work may succeed alone."""


class AdaptiveBatcher:
    """Batch size of one worker: the one asked for, halved each time that a batch does not fit into memory."""

    def __init__(self, what: str) -> None:
        """Starts with no limit.

        Args:
            what: names the work in messages, as a participle: "drawing".
        """
        self._what, self._limit, self._news = what, sys.maxsize, ""

    def map(self, rows: Sequence[Row], do: Callable[[Sequence[Row]], Result], *, size: int) -> Iterator[Result]:
        """Result of `do` for each batch, in order. A batch that does not fit is halved, and so are all later ones.

        Args:
            rows: any sequence that can be sliced.
            do: batch -> anything but None; called again with a smaller batch when memory ran out.
            size: most rows of a batch.

        Raises:
            ValueError: if memory does not hold a single row; says what to do.
        """
        done = 0
        while done < len(rows):
            batch = rows[done : done + min(size, self._limit)]
            result = self._attempt(batch, do)
            if result is None:
                release()
            else:
                done += len(batch)
                yield result

    def each(self, rows: Sequence[Row], do: Callable[[Sequence[Row]], Sequence[Result]], *, size: int) -> list:
        """Result of `do` for each row, or the exception that it raised for this row alone.

        Args:
            rows: any sequence that can be sliced.
            do: batch -> one result a row; where it raises, it is called again row by row.
            size: most rows of a batch.

        Raises:
            ValueError: if memory does not hold a single row; says what to do.
            Exception: one that no row causes: a library, a file or connection, a lost device, or one that is raised
                for every single one of several rows.
        """
        batches = self.map(rows, functools.partial(_isolate_errors, do), size=size)
        results = [result for batch in batches for result in batch]
        errors = [result for result in results if isinstance(result, Exception)]
        if len(errors) == len(rows) > 1:
            raise errors[0]
        return results

    def note(self) -> str:
        """The latest halving since the last call, in words; empty if there was none."""
        news, self._news = self._news, ""
        return news

    def _attempt(self, batch: Sequence[Row], do: Callable[[Sequence[Row]], Result]) -> Result | None:
        """None when memory ran out."""
        try:
            return do(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                words = str(error).strip().partition("\n")[0] or type(error).__name__
                raise ValueError(
                    f"{self._what} runs out of memory even one at a time ({words}): use a smaller checkpoint, or give"
                    " the process more memory"
                ) from error
        self._limit = len(batch) // 2
        self._news = f"out of memory, so {self._what} {self._limit} at once from here on"
        return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception reports that a GPU's or the CPU's memory was exhausted."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def comes_of_memory(error: BaseException) -> bool:
    """Whether memory was exhausted, also if a batcher has said so in its own words."""
    return is_out_of_memory(error) or is_out_of_memory(error.__cause__)


def is_lost_device(error: BaseException) -> bool:
    """Whether an exception reports a GPU that this process cannot use any more: one that fell off the bus, say."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def _isolate_errors(
    do: Callable[[Sequence[Row]], Sequence[Result]], batch: Sequence[Row]
) -> Sequence[Result | Exception]:
    """Results of a batch; after an error, of its rows one by one, with the exception as the result of a row."""
    try:
        return do(batch)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, _SETUP):
            raise
        if len(batch) == 1:
            return [error]
    return [result for k in range(len(batch)) for result in _isolate_errors(do, batch[k : k + 1])]


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process has or can have: reserved memory is its own tensors' or free to use."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def release() -> None:
    """Frees the memory that a failed batch still occupies."""
    gc.collect()  # tracebacks and their frames' tensors are reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
