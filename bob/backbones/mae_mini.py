"""Mini MAE of skyworld: a ViT of 0.5 M parameters, 32 px, pre-trained to reconstruct masked patches.

Its weights are package data, made by `bob.skyworld.pretrain`.
"""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from bob.backbones import Backbone, _mini, _timm
from bob.core.settings import SweepSettings

if TYPE_CHECKING:
    import torch
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor, nn

__all__ = ["PATCH", "MaeMini", "backbone", "network"]

PATCH = 4
"""Side of a patch in pixels."""


def network(classes: int, *, pretraining: bool = False) -> "VisionTransformer":
    """The architecture with random weights: float (b, 3, 32, 32) -> logits (b, classes).

    Pre-training ends with a norm of all tokens; tuning averages the patches and then applies another norm.
    """
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=32,
        patch_size=PATCH,
        embed_dim=96,
        depth=4,
        num_heads=4,
        num_classes=classes,
        global_pool="token" if pretraining else "avg",
        drop_path_rate=0.0 if pretraining else 0.1,
    )


@final
@dataclass(frozen=True, kw_only=True)
class MaeMini(Backbone):
    """Trains all layers, the lower ones with lower learning rates, as the full-size MAE does."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        packaged = Path(str(importlib.resources.files("bob"))) / "skyworld" / "weights" / "mae"
        weights = _timm.find(self.name, packaged=packaged)
        return _timm.fresh_head(network(len(class_names)), weights, head="head", norm=("norm", "fc_norm"))

    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        return _mini.augment(images, generator)

    def parameter_groups(self, model: "nn.Module", *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        return _timm.layer_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)


backbone = MaeMini(
    name="mae_mini",
    size=32,
    kept=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    cost=0.01,
    sweep=SweepSettings(
        lrs=(8e-3, 1.6e-2),  # base rates, per 256 images
        base_batch=256,
        weight_decays=(0.05,),
        layer_decays=(0.75,),
        sweep_epochs=8,
        final_epochs=30,
        warmup_epochs=1.0,
        min_lr=1e-6,
        warmup_lr=0.0,
    ),
)
