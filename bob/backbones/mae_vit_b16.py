"""ViT-B/16 pre-trained as a masked autoencoder on ImageNet (timm's copy of the weights), tuned as its authors do.

Layer-wise learning rates, drop path, RandAugment, random erasing, MixUp or CutMix on every batch, label smoothing;
patch tokens are averaged. He et al. 2022, arXiv:2111.06377, and facebookresearch/mae, main_finetune.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from bob.backbones import Backbone, _datadream, _timm
from bob.core.settings import SweepSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["MaeViTB16", "backbone"]


@final
@dataclass(frozen=True, kw_only=True)
class MaeViTB16(Backbone):
    """86 M parameters, 224 px, CC BY-NC 4.0 weights."""

    hub: str = "timm/vit_base_patch16_224.mae"
    """Repository of the weights if `$BOB_MODELS/mae_vit_b16` does not have them."""
    commit: str = "main"
    """Not pinned: `git ls-remote https://huggingface.co/timm/vit_base_patch16_224.mae main` gives the commit to set."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        import timm

        weights = _timm.find(self.name, hub=self.hub, commit=self.commit)
        model = timm.create_model(
            "vit_base_patch16_224.mae",
            pretrained=False,
            num_classes=len(class_names),
            global_pool="avg",
            drop_path_rate=0.1,
        )
        return _timm.fresh_head(model, weights, head="head", std=2e-5, norm=("norm", "fc_norm"))

    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        """Crop of 8 to 100 %, flip, timm's rand-m9-mstd0.5-inc1, random erasing."""
        from bob.backbones import _augment, _randaugment

        steps = (
            _augment.ResizedCrop(size=self.size, scale=(0.08, 1.0)),
            _augment.Flip(),
            _randaugment.RandAugment(policy=_randaugment.TIMM),
            _augment.Erase(chance=0.25, mean=self.mean, std=self.std),
        )
        return _augment.augment(images, generator, steps)

    def view(self, images: "Tensor") -> "Tensor":
        """Pictures resized to 256 and centre cropped to 224."""
        from torch.nn.functional import interpolate

        larger = self.size * 8 // 7
        images = interpolate(images, size=(larger, larger), mode="bicubic", antialias=True).clamp(0, 1)
        edge = (larger - self.size) // 2
        return images[..., edge : edge + self.size, edge : edge + self.size]

    def parameter_groups(self, model: "nn.Module", *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        return _timm.layer_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)


backbone = MaeViTB16(
    name="mae_vit_b16",
    title="MAE",
    size=224,
    kept=320,
    mean=_datadream.IMAGENET_MEAN,
    std=_datadream.IMAGENET_STD,
    cost=3.0,
    sweep=SweepSettings(
        lrs=(1e-3, 5e-4),  # base rates, per 256 images: Table 4; MAE's FINETUNE.md
        base_batch=256,
        weight_decays=(0.05,),
        layer_decays=(0.65, 0.75),
        warmup_epochs=5.0,
        min_lr=1e-6,
        warmup_lr=0.0,
        mix_probability=1.0,
        mixup_alpha=0.8,
        label_smoothing=0.1,
    ),
)
