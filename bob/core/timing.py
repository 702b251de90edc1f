"""Stopwatch with named laps: the seconds of a unit by activity, for its manifest and its receipt."""

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
    """Stopwatch that runs from its creation; each moment counts for one lap, the innermost open one.

    On a GPU the end of a lap waits for the kernels queued there, so that a lap's time is that of its own work; that
    happens a few times a batch, never at each step. Time between two successive laps counts for the enclosing lap.
    """

    def __init__(self, device: str = "cpu", *, lap: str = "load", begun: float | None = None) -> None:
        """Starts.

        Args:
            device: torch's name of the device that does the work.
            lap: name of the first lap.
            begun: its start on the clock of `time.monotonic`; None for now.
        """
        self._device, self._lap = device, lap
        self._since = time.monotonic() if begun is None else begun
        self._seconds: dict[str, float] = {}
        self._beside: dict[str, float] = {}
        self._is_aside = False

    @contextlib.contextmanager
    def __call__(self, lap: str) -> Iterator[None]:
        """Context of a lap inside the open one, which continues afterwards."""
        outer = self.switch(lap)
        try:
            yield
        finally:
            self.switch(outer)

    def around(self, lap: str, do: Callable[P, T]) -> Callable[P, T]:
        """Wraps a function so that each call is a lap."""

        def timed(*args: P.args, **named: P.kwargs) -> T:
            with self(lap):
                return do(*args, **named)

        return timed

    def switch(self, lap: str) -> str:
        """Ends the open lap and begins another; returns the name of the ended one."""
        torch = sys.modules.get("torch")  # not imported for this: a simulation works without torch
        if torch is not None and self._device.startswith("cuda") and not self._is_aside:
            torch.cuda.synchronize(self._device)
        now = time.monotonic()
        before, self._lap = self._lap, lap
        spent = self._beside if self._is_aside else self._seconds
        spent[before] = spent.get(before, 0.0) + now - self._since
        self._since = now
        return before

    def beside(self, lap: str, seconds: float) -> None:
        """Adds seconds of other threads, which worked beside the laps or beside another unit's."""
        self._beside[lap] = self._beside.get(lap, 0.0) + seconds

    def step_aside(self, lap: str) -> None:
        """Begins a lap that, with all after it, is done beside those of another unit, for which the device works."""
        self.switch(lap)
        self._is_aside = True

    def times(self) -> dict[str, float]:
        """Lap -> seconds so far, to the millisecond, in the order of their first end."""
        self.switch(self._lap)
        return {lap: round(seconds, 3) for lap, seconds in self._seconds.items()}

    def shared(self, among: int) -> "Stopwatch":
        """A running stopwatch with an equal part of the seconds so far, for one of `among` units done together."""
        own = Stopwatch(self._device, lap=self._lap)
        own._seconds = {lap: seconds / among for lap, seconds in self.times().items()}
        return own

    def noted(self) -> dict[str, Any]:
        """Entries for a manifest: total seconds, seconds by lap, and the process id.

        `beside` has the seconds of threads that worked meanwhile or after it, and are no part of the total; it is
        absent where there were none.
        """
        times = self.times()
        aside = {lap: round(seconds, 3) for lap, seconds in self._beside.items()}
        more = {"beside": aside} if aside else {}
        return {"seconds": round(sum(times.values()), 3), "times": times, **more, "process": os.getpid()}
