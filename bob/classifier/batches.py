"""Batches of an epoch: pictures gathered, augmented and mixed. All points of a sweep see the same."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bob.backbones import Backbone
from bob.classifier import loss
from bob.classifier.data import Data
from bob.classifier.pictures import pictures
from bob.core.settings import SweepSettings

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch on the device; not to be changed, for several models are trained on it."""

    images: Tensor
    """The network's input, (b, 3, size, size): the real ones, then the synthetic ones."""
    real_targets: Tensor
    """Label distributions (r, classes)."""
    synthetic_targets: Tensor
    """Label distributions (b - r, classes)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """What the batches of a training depend on; nothing of it is varied by a sweep."""

    data: Data
    backbone: Backbone
    settings: SweepSettings
    mixup: bool
    normalised: Callable[[Tensor], Tensor]
    """float (b, 3, size, size) in [0, 1] -> the network's input."""
    device: torch.device

    def epoch(self, seed: int) -> tuple[int, Iterator[Batch]]:
        """The number of batches of an epoch, and the batches.

        Args:
            seed: of shuffling, augmentation and mixing. What a GPU draws by itself it draws with its global generator.
        """
        generator, data = torch.Generator().manual_seed(seed), self.data
        rows = loss.batches(
            len(data.real), len(data.synthetic), copies=data.copies, batch=self.settings.batch, generator=generator
        )
        return len(rows), (self._batch(real, synthetic, generator) for real, synthetic in rows)

    def _batch(self, real: np.ndarray, synthetic: np.ndarray, generator: torch.Generator) -> Batch:
        images, targets = pictures(self.data, self.device).batch(real, synthetic)
        images = self.backbone.augment(images, generator)
        targets, first, settings = loss.smoothed(targets, self.settings.label_smoothing), len(real), self.settings
        parts = [(images[:first], targets[:first]), (images[first:], targets[first:])]
        if float(torch.rand((), generator=generator)) < settings.mix_probability:
            options = {"use_mixup": self.mixup, "alpha": settings.mixup_alpha}
            parts = [loss.mix(part, labels, generator, **options) for part, labels in parts]
        # One forward pass, so batch norm sees real and synthetic together as in DataDream.
        together = self.normalised(torch.cat([part for part, _ in parts]))
        return Batch(images=together, real_targets=parts[0][1], synthetic_targets=parts[1][1])
