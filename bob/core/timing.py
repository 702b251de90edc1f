"""Where a unit's time goes: seconds by name, noted in its manifest and its receipt."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

__all__ = ["Stopwatch"]

P = ParamSpec("P")
T = TypeVar("T")


class Stopwatch:
    """Runs from when it is made; each moment belongs to one lap, the innermost that is open.

    On a GPU the end of a lap waits for what it has queued there, so that a lap is the time of its own work. That is a
    few times a batch, never at each step. What lies between two laps that follow one another is the outer lap's.
    """

    def __init__(self, device: str = "cpu", *, lap: str = "load", begun: float | None = None) -> None:
        """Starts.

        Args:
            device: where the work is done, as torch names it.
            lap: what it begins with.
            begun: when it began, by `time.monotonic`, if not now.
        """
        self._device, self._lap = device, lap
        self._since = time.monotonic() if begun is None else begun
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, lap: str) -> Iterator[None]:
        """A lap within the one that is open, which goes on after it."""
        outer = self.switch(lap)
        try:
            yield
        finally:
            self.switch(outer)

    def around(self, lap: str, do: Callable[P, T]) -> Callable[P, T]:
        """A function whose calls are laps."""

        def timed(*args: P.args, **named: P.kwargs) -> T:
            with self(lap):
                return do(*args, **named)

        return timed

    def switch(self, lap: str) -> str:
        """Ends the lap that is open and begins another; returns the name of the one that was."""
        torch = sys.modules.get("torch")  # not imported for this: a simulation does without
        if torch is not None and self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        now = time.monotonic()
        before, self._lap = self._lap, lap
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
        self._since = now
        return before

    def times(self) -> dict[str, float]:
        """Lap -> seconds so far, to the millisecond; `load` first where it was."""
        self.switch(self._lap)
        return {lap: round(seconds, 3) for lap, seconds in self._seconds.items()}

    def noted(self) -> dict[str, Any]:
        """For a manifest: seconds in all and by lap, and the process that spent them."""
        times = self.times()
        return {"seconds": round(sum(times.values()), 3), "times": times, "process": os.getpid()}
