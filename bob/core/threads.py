"""Things that need nothing of each other, done side by side in threads."""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

__all__ = ["each"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def each(
    do: Callable[[Item], Answer],
    items: Sequence[Item],
    *,
    at_once: int,
    look: Callable[[], Any] = lambda: None,
    every: float | None = None,
) -> Iterator[Answer]:
    """What `do` gives for each item, in the order in which they end.

    One after another, with nothing to look at meanwhile, they are done in the caller's own thread. Other threads are
    daemons, so that a command that is stopped, or fails, waits for none of them.

    Args:
        do: called in a thread of its own.
        items: begun in their order.
        at_once: threads.
        look: called after each answer and every so many seconds, by the caller's own thread.
        every: seconds; None: only after answers.

    Raises:
        BaseException: the first that `do` raises, whatever it is; what is under way goes on, the rest is not begun.
    """
    if at_once == 1 and every is None:
        for item in items:
            yield do(item)
            look()
        return
    waiting = collections.deque(items)
    answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        with contextlib.suppress(IndexError):  # none waits any more
            while True:
                item = waiting.popleft()
                try:
                    answers.put((do(item), None))
                except BaseException as error:  # whatever it is, the caller raises it
                    waiting.clear()
                    answers.put((None, error))

    for _ in range(min(at_once, len(items))):
        threading.Thread(target=work, daemon=True).start()
    done = 0
    while done < len(items):
        try:
            answer, error = answers.get(timeout=every)
        except queue.Empty:
            look()
            continue
        if error is not None:
            raise error
        yield cast(Answer, answer)
        done += 1
        look()
