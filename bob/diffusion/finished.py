"""Drawn pictures -> rows of the shard: checks, PNG and SHA-1, in threads beside the drawing of the next batch."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from PIL import Image

from bob.core.timing import Stopwatch
from bob.core.types import Request
from bob.store import images, tables

__all__ = ["Finished", "Row", "finish"]

Row = dict[str, Any]


class Finished:
    """A unit whose pictures are drawn; threads may still encode them."""

    def __init__(
        self, requests: Sequence[Request], results: "Sequence[Exception | Future[tuple[Row | ValueError, float]]]"
    ) -> None:
        """`results` are, one a request, the exception that it raised, or what `finish` will return."""
        self._requests, self._results = requests, results

    def rows(self, times: Stopwatch) -> tuple[list[Row], list[Row]]:
        """Waits for the threads.

        Args:
            times: gets the wait as lap `write`, and the threads' seconds as `png`, done beside the laps.

        Returns:
            Rows of `schema.IMAGES`, and rows of `schema.REJECTED` for requests that made the pipeline raise and for
            images that are not finite or of a single colour.

        Raises:
            Exception: what a thread raised, which is no request's fault.
        """
        rows, rejected, spent = list[Row](), list[Row](), 0.0
        with times("write"):
            for request, result in zip(self._requests, self._results, strict=True):
                made, seconds = (result, 0.0) if isinstance(result, Exception) else result.result()
                spent += seconds
                if isinstance(made, Exception):
                    rejected.append(tables.rejection(request.request_id, "generate", made))
                else:
                    rows.append(made)
        times.beside("png", spent)
        return rows, rejected


def finish(
    request: Request, picture: Image.Image | None, *, checkpoint: str, seconds: float
) -> tuple[Row | ValueError, float]:
    """Row of `schema.IMAGES`, or why there is none, and the seconds that it took.

    Args:
        request: what was drawn.
        picture: None if it has values that are not finite.
        checkpoint: for the row.
        seconds: of the drawing, for the row.
    """
    start = time.monotonic()
    made = _fault(picture)
    if picture is not None and made is None:
        made = images.image_row(request, picture, checkpoint=checkpoint, seconds=seconds)
    assert made is not None
    return made, time.monotonic() - start


def _fault(picture: Image.Image | None) -> ValueError | None:
    """Error of an image that shows a broken checkpoint or adapter; None for a sound one."""
    if picture is None:
        return ValueError("values that are not finite: the checkpoint or its adapter is broken")
    pixels = np.asarray(picture)
    if (pixels == pixels[0, 0]).all():
        return ValueError("one colour all over: the checkpoint or its adapter is broken")
    return None
