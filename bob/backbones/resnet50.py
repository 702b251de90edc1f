"""ResNet-50 pre-trained on ImageNet (timm's copy of torchvision's IMAGENET1K_V1), all layers trained.

The paper says "ImageNet ResNet-50"; which weights is open. Augmentation, AdamW and
train-mode batch norm are DataDream's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from bob.backbones import Backbone, _datadream, _timm

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["ResNet50", "backbone"]


@final
@dataclass(frozen=True, kw_only=True)
class ResNet50(Backbone):
    """25.6 M parameters, 224 px, BSD-3 weights."""

    hub: str = "timm/resnet50.tv_in1k"
    """Repository of the weights if `$BOB_MODELS/resnet50` does not have them."""
    commit: str = "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa"

    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        import timm

        weights = _timm.find(self.name, hub=self.hub, commit=self.commit)
        model = timm.create_model("resnet50.tv_in1k", pretrained=False, num_classes=len(class_names))
        return _timm.fresh_head(model, weights)

    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        return _datadream.augment(images, generator, size=self.size)


backbone = ResNet50(
    name="resnet50",
    title="ImageNet",
    size=224,
    kept=320,
    mean=_datadream.IMAGENET_MEAN,
    std=_datadream.IMAGENET_STD,
    revision="2",  # revision 1 augmented picture by picture
)
