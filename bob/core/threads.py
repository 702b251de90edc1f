"""Runs independent tasks in daemon threads."""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

__all__ = ["as_completed"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def as_completed(
    do: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    at_once: int,
    look: Callable[[], Any] = lambda: None,
    every: float | None = None,
) -> Iterator[Result]:
    """Results of `do` for each item, in the order of completion.

    With one thread and no interval the items run in the caller's own thread, in order. Otherwise the threads are
    daemons, so that a command that is stopped, or fails, waits for none of them.

    Args:
        do: called once an item.
        items: started in this order.
        at_once: most threads.
        look: called in the caller's thread after each result and at each interval, for example to show progress.
        every: the interval in seconds; None calls `look` after results only.

    Raises:
        BaseException: the first that `do` raises, whatever it is. Items that are running go on, no other is started.
    """
    if at_once == 1 and every is None:
        for item in items:
            yield do(item)
            look()
        return
    pending = collections.deque(items)
    results: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        with contextlib.suppress(IndexError):  # no item is left
            while True:
                item = pending.popleft()
                try:
                    results.put((do(item), None))
                except BaseException as error:  # whatever it is, the caller raises it
                    pending.clear()
                    results.put((None, error))

    for _ in range(min(at_once, len(items))):
        threading.Thread(target=work, daemon=True).start()
    done = 0
    while done < len(items):
        try:
            result, error = results.get(timeout=every)
        except queue.Empty:
            look()
            continue
        if error is not None:
            raise error
        yield cast(Result, result)
        done += 1
        look()
