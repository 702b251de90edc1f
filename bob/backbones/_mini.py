"""Training transform of the mini backbones at 32 pixels."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["augment"]


def augment(images: "Tensor", generator: "torch.Generator") -> "Tensor":
    """A shift by up to 3 pixels, a flip, 20 % of brightness and contrast; stronger transforms destroy 32 px.

    Args:
        images: float (b, 3, 32, 32) in [0, 1].
        generator: on the CPU.
    """
    from bob.backbones import _augment

    steps = (_augment.Shift(reach=3), _augment.Flip(), _augment.Jitter(brightness=0.2, contrast=0.2))
    return _augment.augment(images, generator, steps)
