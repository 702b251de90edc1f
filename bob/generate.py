"""Step 3: requests -> images. Draws the synthetic training set, one committed shard a unit.

An image depends on its request and adapter alone: each has its own CPU generator, so batch, shard,
worker, order and retry cannot change it (beyond float reduction order across batch shapes).
"""

import hashlib
import io
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from bob import memory, schema
from bob.diffusion import checkpoints, draw, lora
from bob.types import Request

__all__ = ["Painter"]

Row = dict[str, Any]


class Painter:
    """One resident checkpoint on one device; swaps adapters from a clean copy of its weights."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._loaded: tuple[str, str] | None = None
        self._pipeline: Any = None
        self._clean: list[dict[str, torch.Tensor]] = []
        self._batches = memory.Batches("drawing")

    def use(self, checkpoint: str, adapter: str, read: Callable[[], bytes]) -> None:
        """Makes ready to draw with a checkpoint and an adapter.

        Args:
            checkpoint: as `checkpoints.load` takes it.
            adapter: names the adapter; empty for the bare checkpoint.
            read: gives the adapter's safetensors bytes; called only if it is not in use already.
        """
        if self._loaded == (checkpoint, adapter):
            return
        loaded, self._loaded = self._loaded, None  # a failure below must not leave half an adapter as if it were whole
        if loaded is None or loaded[0] != checkpoint:
            self._pipeline = checkpoints.load(checkpoint, device=self._device, dtype=self._dtype)
            self._pipeline.unet.to(memory_format=torch.channels_last)
            self._clean = [_copy(model) for model in self._tuned()]
            self._batches = memory.Batches("drawing")
        else:
            for model, clean in zip(self._tuned(), self._clean, strict=True):
                model.load_state_dict(clean)
        if adapter:
            lora.fuse(self._pipeline, read())
        self._loaded = (checkpoint, adapter)

    def draw(self, requests: Sequence[Request], *, batch: int) -> tuple[list[Row], list[Row]]:
        """Draws requests, at most `batch` at once; fewer, from then on, where memory runs out.

        Returns:
            Rows of `schema.IMAGES`, and rows of `schema.REJECTED` for requests over which the pipeline
            raises, and for pictures that are not finite or of one colour.

        Raises:
            ValueError: if memory does not hold one picture.
            Exception: what is raised over every single one of several requests.
        """
        assert self._loaded is not None, "use() comes first"
        rows, rejected = [], []
        for alike in _alike(requests):
            made = self._batches.each(alike, self._timed, size=batch)
            for request, drawn in zip(alike, made, strict=True):
                if not isinstance(drawn, Exception):
                    picture, seconds = drawn
                    drawn = _fault(picture) or _row(request, picture, self._loaded[0], seconds)
                if isinstance(drawn, Exception):
                    rejected.append(schema.rejection(request.request_id, "generate", drawn))
                else:
                    rows.append(drawn)
        return rows, rejected

    def note(self) -> str:
        """A few words for the receipt if memory has run out since this was last asked."""
        return self._batches.note()

    def _timed(self, some: Sequence[Request]) -> list[tuple[Image.Image | None, float]]:
        begun = time.monotonic()
        pictures = draw.text2img(self._pipeline, some)
        each = (time.monotonic() - begun) / len(some)
        return [(picture, each) for picture in pictures]

    def _tuned(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        return self._pipeline.unet, self._pipeline.text_encoder


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _alike(requests: Sequence[Request]) -> list[list[Request]]:
    """Neighbours that agree in what a batch must agree in."""
    groups = itertools.groupby(requests, key=lambda r: (r.kind, r.guidance, r.steps, r.scheduler))
    return [list(group) for _, group in groups]


def _fault(picture: Image.Image | None) -> ValueError | None:
    if picture is None:
        return ValueError("values that are not finite: the checkpoint or its adapter is broken")
    pixels = np.asarray(picture)
    if (pixels == pixels[0, 0]).all():
        return ValueError("one colour all over: the checkpoint or its adapter is broken")
    return None


def _row(request: Request, picture: Image.Image, checkpoint: str, seconds: float) -> Row:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    image = buffer.getvalue()
    return {
        **{name: getattr(request, name) for name in schema.REQUESTS.names},
        "image": image,
        "format": "png",
        "width": picture.width,
        "height": picture.height,
        "sha1": hashlib.sha1(image, usedforsecurity=False).hexdigest(),
        "checkpoint": checkpoint,
        "seconds": seconds,
    }
