"""DataDream's training transform on a batch, used for CLIP and the ImageNet networks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "augment"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def augment(images: "Tensor", generator: "torch.Generator", *, size: int) -> "Tensor":
    """RandAugment(2, 9), a crop of 25 to 100 %, flip, colour jitter, greyscale, blur, solarisation.

    Args:
        images: float (b, 3, s, s) in [0, 1].
        generator: on the CPU.
        size: side of the result, (b, 3, size, size) in [0, 1].

    Source: DataDream, arXiv:2407.10910, classify/data.py.
    """
    from bob.backbones import _augment, _colours, _randaugment

    steps = (
        _randaugment.RandAugment(policy=_randaugment.TORCHVISION),
        _augment.ResizedCrop(size=size, scale=(0.25, 1.0)),
        _augment.Flip(),
        _colours.ColourJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, chance=0.8),
        _colours.Grey(chance=0.2),
        _augment.Blur(sigma=(0.1, 2.0), chance=0.2),
        _colours.Solarise(threshold=0.5, chance=0.2),
    )
    return _augment.augment(images, generator, steps)
