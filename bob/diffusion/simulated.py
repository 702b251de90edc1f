"""Simulated image generator: sleeps and makes noise, to rehearse a cluster and to measure the cost of feeding GPUs.

It has the interface of `image_generator.ImageGenerator` and needs no torch, so that many processes fit one machine.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from bob.core.timing import Stopwatch
from bob.core.types import Filter, Request
from bob.diffusion import checkpoints
from bob.store import images

__all__ = ["ImageGenerator"]

_SIDE = 8  # pixels

Row = dict[str, Any]


class ImageGenerator:
    """Sleeps for the checkpoint's seconds at each batch; an image is noise from its request's seed."""

    def __init__(self, device: str) -> None:
        """Accepts any device and uses none."""
        self.times, self.occupancy = Stopwatch(), 0.0
        self._checkpoint, self._seconds = "", 0.0

    def use(self, checkpoint: str, *others: object, **more: object) -> None:
        """Selects a simulated checkpoint; adapters and sources have no effect."""
        self._checkpoint, self._seconds = checkpoint, checkpoints.simulated(checkpoint) or 0.0

    def start(self, requests: Sequence[Request], *, batch: int, **_: object) -> "_Drawn":
        """Draws requests; there is nothing to compile."""
        rows = []
        for start in range(0, len(requests), batch):
            with self.times("denoise"):
                time.sleep(self._seconds)
            drawn = requests[start : start + batch]
            seconds = self._seconds / len(drawn)
            rows += [images.image_row(r, _noise(r), checkpoint=self._checkpoint, seconds=seconds) for r in drawn]
        self.occupancy = len(requests) / (batch * -(-len(requests) // batch))
        return _Drawn(rows)

    def score(self, rows: Sequence[Row], rule: Filter) -> list[Row]:
        """Rows of `schema.SCORES` with meaningless scores."""
        return [{"request_id": r["request_id"], "score": r["seed"] / 2**63, "clip": self._checkpoint} for r in rows]

    def note(self) -> str:
        """Which process drew, for the receipt."""
        return f"simulated by process {os.getpid()}"


class _Drawn:
    """Rows that need no thread, with the interface of `finished.Finished`."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def rows(self, _: Stopwatch) -> tuple[list[Row], list[Row]]:
        """Rows of `schema.IMAGES`, and no rejected ones."""
        return self._rows, []


def _noise(request: Request) -> Image.Image:
    return Image.fromarray(np.random.default_rng(request.seed).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8))
