"""Feature extraction from images, for the distances of `bob.paper.metrics`. Plain PyTorch, no Ray.

An extractor is one of `bob/backbones/` without its head; images are preprocessed as for the classifier's evaluation.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bob import backbones
from bob.core import batching
from bob.store import tables

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Embedder"]

_BATCH = 32  # images


class Embedder:
    """One extractor on one device; its weights are loaded at the first call."""

    def __init__(self, name: str, *, device: str) -> None:
        self._backbone, self._device = backbones.load(name), torch.device(device)
        self._batcher = batching.AdaptiveBatcher("extracting features")

    def __call__(
        self, ids: Sequence[str], class_ids: Sequence[int], load: Callable[[int], "Image.Image"]
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Extracts the features of images.

        Args:
            ids: one an image.
            class_ids: one an image.
            load: position -> image.

        Returns:
            Rows of schema.FEATURES in the images' order; and rows of schema.REJECTED for images that make `load` or the
            extractor raise.

        Raises:
            ValueError: if the extractor's weights are missing, or memory does not hold one image.
            Exception: an error that every single one of several images raises.
        """
        self.load()  # before any image: that weights are missing is no image's fault
        rows, rejected = [], []
        results = self._batcher.each(
            range(len(ids)), lambda batch: self._features([load(k) for k in batch]), size=_BATCH
        )
        for name, class_id, result in zip(ids, class_ids, results, strict=True):
            if isinstance(result, Exception):
                rejected.append(tables.rejection(name, "embed", result))
            else:
                rows.append({"id": name, "class_id": class_id, "features": result})
        return rows, rejected

    def load(self) -> None:
        """Loads the weights unless they are loaded; raises ValueError if they are missing."""
        self._model  # noqa: B018

    def note(self) -> str:
        """For the receipt: whether memory has run out since the last call; empty if not."""
        return self._batcher.note()

    @functools.cached_property
    def _model(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):  # for the weights of its head, which is not used
            return self._backbone.build(("",), descriptor="picture").to(self._device).eval()

    @torch.inference_mode()
    def _features(self, pictures: Sequence["Image.Image"]) -> list[np.ndarray]:
        """Features, float32 (width,), of each image, in evaluation mode."""
        backbone = self._backbone
        pixels = torch.from_numpy(np.stack([backbone.prepare(picture) for picture in pictures]))
        images = backbone.view(pixels.to(self._device).permute(0, 3, 1, 2).float() / 255)
        mean, std = (torch.tensor(v, device=self._device).view(3, 1, 1) for v in (backbone.mean, backbone.std))
        return list(backbone.features(self._model, (images - mean) / std).float().cpu().numpy())
