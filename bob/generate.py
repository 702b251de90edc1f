"""Step 3: requests -> images. Draws the synthetic training set, one committed shard a unit.

An image depends on its request and adapter alone: each has its own CPU generator, so batch, shard,
worker, order and retry cannot change it (beyond float reduction order across batch shapes).
"""

import hashlib
import io
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from bob import schema
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
        else:
            for model, clean in zip(self._tuned(), self._clean, strict=True):
                model.load_state_dict(clean)
        if adapter:
            lora.fuse(self._pipeline, read())
        self._loaded = (checkpoint, adapter)

    def draw(self, requests: Sequence[Request], *, batch: int) -> tuple[list[Row], list[Row]]:
        """Draws requests, at most `batch` at once.

        Returns:
            Rows of `schema.IMAGES`, and rows of `schema.REJECTED` for pictures that are not finite or of one colour.
        """
        assert self._loaded is not None, "use() comes first"
        rows, rejected = [], []
        for some in _batches(requests, batch):
            begun = time.monotonic()
            pictures = draw.text2img(self._pipeline, some)
            each = (time.monotonic() - begun) / len(some)
            for request, picture in zip(some, pictures, strict=True):
                if picture is None or _is_plain(picture):
                    what = "values that are not finite" if picture is None else "one colour all over"
                    rejected.append(_reject(request, f"{what}: the checkpoint or its adapter is broken"))
                else:
                    rows.append(_row(request, picture, self._loaded[0], each))
        return rows, rejected

    def _tuned(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        return self._pipeline.unet, self._pipeline.text_encoder


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Neighbours that agree in what a batch must agree in, at most `size` at once."""
    for _, group in itertools.groupby(requests, key=lambda r: (r.kind, r.guidance, r.steps, r.scheduler)):
        alike = list(group)
        yield from (alike[k : k + size] for k in range(0, len(alike), size))


def _is_plain(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels == pixels[0, 0]).all())


def _reject(request: Request, message: str) -> Row:
    return {"row_id": request.request_id, "step": "generate", "error": "ValueError", "message": message}


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
