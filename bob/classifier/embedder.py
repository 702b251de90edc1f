"""What a feature extractor sees in pictures, for the distances of `bob.paper.metrics`. Plain PyTorch, no Ray.

An extractor is one of `bob/backbones/` without its head, its pictures those that the classifier is evaluated on.
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

_BATCH = 32  # pictures


class Embedder:
    """One extractor on one device, its weights loaded at the first picture."""

    def __init__(self, name: str, *, device: str) -> None:
        self._backbone, self._device = backbones.load(name), torch.device(device)
        self._batches = batching.Batches("extracting features")

    def __call__(
        self, ids: Sequence[str], class_ids: Sequence[int], load: Callable[[int], "Image.Image"]
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Embeds pictures.

        Args:
            ids: of the pictures.
            class_ids: theirs.
            load: position -> the picture.

        Returns:
            Rows of schema.FEATURES in the pictures' order; and rows of schema.REJECTED for those that `load` or the
            extractor raises over.

        Raises:
            ValueError: if the extractor's weights are not there, or memory does not hold one picture.
            Exception: what is raised over every single one of several pictures.
        """
        self.load()  # before any picture: that weights are missing is no picture's fault
        rows, rejected = [], []
        seen = self._batches.each(range(len(ids)), lambda some: self._features([load(k) for k in some]), size=_BATCH)
        for name, class_id, found in zip(ids, class_ids, seen, strict=True):
            if isinstance(found, Exception):
                rejected.append(tables.rejection(name, "embed", found))
            else:
                rows.append({"id": name, "class_id": class_id, "features": found})
        return rows, rejected

    def load(self) -> None:
        """Loads the weights, unless they are; raises as a call does."""
        self._model  # noqa: B018

    def note(self) -> str:
        """A few words for the receipt if memory has run out since this was last asked."""
        return self._batches.note()

    @functools.cached_property
    def _model(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):  # it gets a head, which is not used
            return self._backbone.build(("",), descriptor="picture").to(self._device).eval()

    @torch.inference_mode()
    def _features(self, pictures: Sequence["Image.Image"]) -> list[np.ndarray]:
        """float32 (width,) of each, evaluated as the classifiers are."""
        backbone = self._backbone
        pixels = torch.from_numpy(np.stack([backbone.prepare(picture) for picture in pictures]))
        images = backbone.view(pixels.to(self._device).permute(0, 3, 1, 2).float() / 255)
        mean, std = (torch.tensor(of, device=self._device).view(3, 1, 1) for of in (backbone.mean, backbone.std))
        return list(backbone.features(self._model, (images - mean) / std).float().cpu().numpy())
