"""ResNet-50 pre-trained on ImageNet: timm's copy of torchvision's IMAGENET1K_V1 weights, all trained.

The paper says "ImageNet ResNet-50"; which weights is open (methods.md 4.3). Augmentation, AdamW and
train-mode batch norm are DataDream's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import timm
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from bob.backbones import Backbone, _timm

__all__ = ["ResNet50", "backbone"]


@final
@dataclass(frozen=True, kw_only=True)
class ResNet50(Backbone):
    """25.6 M parameters, 224 px, BSD-3 weights."""

    hub: str = "timm/resnet50.tv_in1k"
    """Where the weights are taken from if `$BOB_MODELS/resnet50` does not have them."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> nn.Module:
        weights = _timm.find(self.name, hub=self.hub)
        model = timm.create_model("resnet50.tv_in1k", pretrained=False, num_classes=len(class_names))
        return _timm.fresh_head(model, weights)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """DataDream's training transform, on uint8 as there. Each picture draws for itself."""
        seed = int(torch.randint(2**62, (), generator=generator))
        # torchvision's transforms know the global generator only, and draw once for a whole batch.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return torch.stack([_TRAIN(image) for image in images])


_TRAIN = v2.Compose(
    [
        v2.ToDtype(torch.uint8, scale=True),
        v2.RandAugment(num_ops=2, magnitude=9),
        v2.RandomResizedCrop(224, scale=(0.25, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(13, sigma=(0.1, 2.0))], p=0.2),
        v2.RandomSolarize(threshold=128, p=0.2),
        v2.ToDtype(torch.float32, scale=True),
    ]
)

backbone = ResNet50(name="resnet50", size=224, kept=320, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
