"""Downstream models: one file each, holding `backbone`: a `Backbone`, or a `Family` of them.

bob/backbones/x.py:   backbone = X(name="x", size=224, ...)
                      backbone = Family(make=lambda checkpoint: X(name=f"x:{checkpoint}", ...), example="vit_tiny")
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bob.core import registry
from bob.core.settings import SweepSettings

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

__all__ = ["Backbone", "Family", "load"]


@dataclass(frozen=True, kw_only=True)
class Backbone(abc.ABC):
    """How pictures become logits: pre-trained weights, pixels and augmentation. Final leaves only."""

    name: str
    size: int
    """Side in pixels of what the model sees."""
    kept: int
    """Side in pixels at which pictures are kept in memory; training crops `size` out of it."""
    mean: tuple[float, float, float]
    """Of the normalisation, per channel, for pixels in [0, 1]."""
    std: tuple[float, float, float]
    sweep: SweepSettings = field(default_factory=SweepSettings)
    """The grid and budgets that it is swept with, unless the run says otherwise."""
    title: str = ""
    """What the paper's tables call it; empty: its name."""
    hub: str = ""
    """Repository on the Hugging Face hub that its weights come from; empty: part of this package."""
    cost: float = 1.0
    """Time that training on a picture takes, in ResNet-50's, roughly: longer sweeps begin first."""
    revision: str = "1"
    """Part of the key of every result: raise it when the weights change, or what is done to pictures."""

    @abc.abstractmethod
    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        """The model with its pre-trained weights and a fresh head, on the CPU.

        Args:
            class_names: indexed by class id; a model that reads text makes its head of them.
            descriptor: one word for what all classes are, for the same purpose.

        Returns:
            Normalised float (b, 3, size, size) -> logits (b, classes). Draws the head from the
            global generator, which the caller seeds.

        Raises:
            ValueError: if the weights are neither in `$BOB_MODELS`, nor here, nor to be had.
        """

    @abc.abstractmethod
    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        """Each picture augmented for itself, by the given CPU generator and nothing else.

        Args:
            images: float (b, 3, kept, kept) in [0, 1].

        Returns:
            float (b, 3, size, size) in [0, 1].
        """

    def parameter_groups(self, model: "nn.Module", *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its `weight_decay` and the `lr_scale` that its learning rate is multiplied by.

        Here one group of all trainable parameters, biases and norms included (DataDream).

        Raises:
            ValueError: if a layer decay is asked of a model that has none.
        """
        if layer_decay != 1.0:
            raise ValueError(f"{self.name} has no layer-wise learning rates: layer_decay must be 1, got {layer_decay}")
        trained = [p for p in model.parameters() if p.requires_grad]
        return [{"params": trained, "lr_scale": 1.0, "weight_decay": weight_decay}]

    def features(self, model: "nn.Module", images: "Tensor") -> "Tensor":
        """What the head reads: normalised float (b, 3, size, size) -> (b, width). Here timm's pooled features.

        Args:
            model: as `build` made it, in evaluation mode.
            images: as the model takes them.
        """
        timm: Any = model
        return timm.forward_head(timm.forward_features(images), pre_logits=True)

    def prepare(self, image: "Image.Image") -> np.ndarray:
        """A picture as it is kept: short side resized to `kept`, centre cropped, uint8 (kept, kept, 3)."""
        from PIL import Image, ImageOps

        side = (self.kept, self.kept)
        return np.asarray(ImageOps.fit(image.convert("RGB"), side, Image.Resampling.BICUBIC))

    def view(self, images: "Tensor") -> "Tensor":
        """Pictures as evaluation sees them: float (b, 3, kept, kept) -> (b, 3, size, size), in [0, 1]."""
        if self.kept == self.size:
            return images
        from torch.nn.functional import interpolate

        smaller = interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True)
        return smaller.clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A file that stands for many checkpoints: what follows the colon says which."""

    make: Callable[[str], Backbone]
    """From what follows the colon; a ValueError says what is wrong with it."""
    example: str
    """What may follow it."""


def load(name: str) -> Backbone:
    """The backbone in the file called `name`, or for `FAMILY:CHECKPOINT` the one that the family makes.

    Raises:
        ValueError: if there is no such file or checkpoint; lists the known names and the nearest.
    """
    file, _, checkpoint = name.partition(":")
    held = registry.load("backbone", file)
    if isinstance(held, Family):
        if not checkpoint:
            raise ValueError(f"backbone {file!r} wants a checkpoint after a colon, as in {file}:{held.example}")
        return held.make(checkpoint)
    if checkpoint:
        raise ValueError(f"backbone {file!r} has one checkpoint only: leave out {checkpoint!r}")
    return held
