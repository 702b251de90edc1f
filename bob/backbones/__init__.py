"""Registry of downstream models, one per file, each holding `backbone`: a `Backbone` or a `Family` of them.

bob/backbones/x.py:   backbone = X(name="x", size=224, ...)
                      backbone = Family(make=lambda checkpoint: X(name=f"x:{checkpoint}", ...), example="vit_tiny")
"""

import abc
import re
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

__all__ = ["Backbone", "Family", "load", "pinned"]


@dataclass(frozen=True, kw_only=True)
class Backbone(abc.ABC):
    """A downstream classifier: pre-trained weights, preprocessing and augmentation. Subclasses are final."""

    name: str
    size: int
    """Side in pixels of the model's input."""
    kept: int
    """Side in pixels of the pictures kept in memory; training crops them to `size`."""
    mean: tuple[float, float, float]
    """Mean of the normalisation, per channel, for pixels in [0, 1]."""
    std: tuple[float, float, float]
    sweep: SweepSettings = field(default_factory=SweepSettings)
    """Grid and budgets of its sweep, unless the run says otherwise."""
    title: str = ""
    """Name in the paper's tables; empty: `name`."""
    hub: str = ""
    """Repository of its weights on the Hugging Face hub; empty: part of this package."""
    commit: str = ""
    """Commit of `hub`, 40 hex digits; `main`: its newest, whose changes change no key; empty without `hub`."""
    cost: float = 1.0
    """Rough training time per picture, relative to ResNet-50: longer sweeps start first."""
    revision: str = "1"
    """Part of the key of every result: bump it when weights of this package or the preprocessing change."""

    @property
    def identity(self) -> str:
        """Revision and commit, as keys contain them."""
        return f"{self.revision} {self.commit}".rstrip()

    @abc.abstractmethod
    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        """The model with its pre-trained weights and a fresh head, on the CPU.

        Args:
            class_names: indexed by class id; a model with a text encoder builds its head from them.
            descriptor: one word for all classes, for the same purpose.

        Returns:
            Normalised float (b, 3, size, size) -> logits (b, classes). Draws the head from the
            global generator, which the caller seeds.

        Raises:
            ValueError: if the weights are neither in `$BOB_MODELS`, nor packaged, nor downloadable.
        """

    @abc.abstractmethod
    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        """Augments each picture independently; all randomness is from the given CPU generator.

        On a GPU noise of a picture's size is from the GPU's global generator, which the caller seeds.

        Args:
            images: float (b, 3, kept, kept) in [0, 1].

        Returns:
            float (b, 3, size, size) in [0, 1].
        """

    def parameter_groups(self, model: "nn.Module", *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its `weight_decay` and `lr_scale`, a factor on the learning rate.

        By default one group of all trainable parameters, biases and norms included (DataDream).

        Raises:
            ValueError: if `layer_decay` is not 1 and the model does not support it.
        """
        if layer_decay != 1.0:
            raise ValueError(f"{self.name} has no layer-wise learning rates: layer_decay must be 1, got {layer_decay}")
        trained = [p for p in model.parameters() if p.requires_grad]
        return [{"params": trained, "lr_scale": 1.0, "weight_decay": weight_decay}]

    def features(self, model: "nn.Module", images: "Tensor") -> "Tensor":
        """Input of the head: normalised float (b, 3, size, size) -> (b, width). By default timm's pooled features.

        Args:
            model: a model from `build`, in evaluation mode.
            images: input of the model.
        """
        timm: Any = model
        return timm.forward_head(timm.forward_features(images), pre_logits=True)

    def prepare(self, image: "Image.Image") -> np.ndarray:
        """A picture for the memory: short side resized to `kept`, centre cropped, uint8 (kept, kept, 3)."""
        from PIL import Image, ImageOps

        side = (self.kept, self.kept)
        return np.asarray(ImageOps.fit(image.convert("RGB"), side, Image.Resampling.BICUBIC))

    def view(self, images: "Tensor") -> "Tensor":
        """Pictures resized for evaluation: float (b, 3, kept, kept) -> (b, 3, size, size), in [0, 1]."""
        if self.kept == self.size:
            return images
        from torch.nn.functional import interpolate

        smaller = interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True)
        return smaller.clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A file for many checkpoints, selected by the text after the colon."""

    make: Callable[[str], Backbone]
    """(checkpoint) -> its backbone; raises ValueError for an unusable checkpoint."""
    example: str
    """A checkpoint, for error messages."""


def pinned(checkpoint: str) -> tuple[str, str]:
    """Splits `NAME@COMMIT` of a checkpoint on the hub; the commit is `main`, the newest, where none is given.

    Raises:
        ValueError: if the commit has not 40 hex digits: a branch or a tag can move.
    """
    name, at, commit = checkpoint.partition("@")
    if at and not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(f"a checkpoint is pinned by the 40 hex digits of a commit on the hub, got {checkpoint!r}")
    return name, commit or "main"


def load(name: str) -> Backbone:
    """Loads the backbone in the file `name`, or for `FAMILY:CHECKPOINT` the one that the family makes.

    Raises:
        ValueError: if there is no such file or checkpoint; lists the known names and the nearest.
    """
    file, _, checkpoint = name.partition(":")
    entry = registry.load("backbone", file)
    if isinstance(entry, Family):
        if not checkpoint:
            raise ValueError(f"backbone {file!r} wants a checkpoint after a colon, as in {file}:{entry.example}")
        return entry.make(checkpoint)
    if checkpoint:
        raise ValueError(f"backbone {file!r} has one checkpoint only: leave out {checkpoint!r}")
    return entry
