"""What a measured stage reports, its steps and its activities, and the pictures that it is given."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from benchmarks.counting.host import Laps

__all__ = ["Meter", "picture"]


class Meter(contextlib.ExitStack):
    """What a stage tells of its steps and activities; undoes its own wrapping on exit."""

    def __init__(self, device: str, tick: Callable[[], None], laps: Laps | None = None) -> None:
        """Begins.

        Args:
            device: torch's name of the device.
            tick: called after the set-up or the first step, which makes the optimiser's state, and after each step.
            laps: where activities are timed; None: they are not.
        """
        super().__init__()
        self.device, self.tick, self._laps = device, tick, laps

    def activity(self, name: str, owner: Any, attribute: str) -> None:
        """Makes each call of a function an activity, if activities are timed."""
        if self._laps is not None:
            timed = self._laps.around(name, getattr(owner, attribute))
            self.enter_context(mock.patch.object(owner, attribute, timed))

    def trains(self) -> None:
        """Makes the backward pass and the optimiser activities; a step ends with the optimiser's."""
        self.activity("backward", Tensor, "backward")
        outer: list[str] = []

        def begin(*_: Any) -> None:
            if self._laps is not None:
                outer.append(self._laps.switch("optimiser"))

        def end(*_: Any) -> None:
            if self._laps is not None:
                self._laps.switch(outer.pop())
            self.tick()

        self.callback(register_optimizer_step_pre_hook(begin).remove)
        self.callback(register_optimizer_step_post_hook(end).remove)


def picture(name: int, width: int = 768, height: int = 512) -> Image.Image:
    """A smooth picture with some grain, which a PNG compresses about as it does a photograph."""
    rng = np.random.default_rng(name)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    grain = rng.integers(-8, 9, smooth.shape)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
