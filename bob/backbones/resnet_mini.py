"""Mini ResNet of skyworld: 0.6 M parameters, 32 px, pre-trained on kinds of aircraft and their contexts.

Its weights are package data, made by `bob.skyworld.pretrain`.
"""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from bob.backbones import Backbone, _mini, _timm
from bob.core.settings import SweepSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["HEADS", "ResNetMini", "backbone", "network"]

HEADS = (30, 12, 6)
"""Classes of the pre-training heads: families of base classes, backgrounds, poses."""


def network(classes: int) -> "nn.Module":
    """The architecture with random weights: float (b, 3, 32, 32) -> logits (b, classes)."""
    return _timm.small_resnet(classes, layers=(1, 1, 1, 1), channels=(32, 64, 128, 128), strides=(1, 2, 1))


@final
@dataclass(frozen=True, kw_only=True)
class ResNetMini(Backbone):
    """Trains all layers, as ResNet-50 does."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        packaged = Path(str(importlib.resources.files("bob"))) / "skyworld" / "weights" / "resnet"
        return _timm.fresh_head(network(len(class_names)), _timm.find(self.name, packaged=packaged))

    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        return _mini.augment(images, generator)


# Two learning rates and few epochs: on 50 shots of 10 novel classes the best of 30 epochs was
# never later than the 7th, and 1e-4 did not converge in 8.
backbone = ResNetMini(
    name="resnet_mini",
    size=32,
    kept=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    cost=0.003,
    sweep=SweepSettings(lrs=(1e-3, 3e-3), weight_decays=(1e-2,), sweep_epochs=6, final_epochs=20, warmup_epochs=1.0),
)
