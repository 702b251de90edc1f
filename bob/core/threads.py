"""Independent tasks in daemon threads, and a number of torch threads that does not depend on the machine."""

import collections
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

__all__ = ["as_completed", "fixed", "use"]

_VARIABLE = "OMP_NUM_THREADS"

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


@contextlib.contextmanager
def fixed(count: int) -> Iterator[None]:
    """Computes with `count` torch threads inside the block, in this thread; also a decorator.

    torch divides sums among its threads, by default one a core, so with another number the last bits differ: of a
    picture rarely a pixel, of a classifier after a thousand steps whole points of accuracy. torch is not imported here;
    where the block is the first to import it, the number stays.
    """
    variable, torch = os.environ.get(_VARIABLE), sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    use(count)
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)  # perhaps another thread has ended its block
        if variable is not None:
            os.environ[_VARIABLE] = variable
        if torch:
            torch.set_num_threads(before)


def use(count: int) -> None:
    """Sets the number of torch threads of this thread, or of a later import of torch."""
    os.environ[_VARIABLE] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
