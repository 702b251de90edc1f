"""Augmentations of a whole batch as tensor operations, each drawn from a given generator."""

import torch
from torch import Tensor

__all__ = ["flip", "jitter", "shift"]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each picture of (b, 3, h, w) left to right with probability a half."""
    chosen = _uniform(len(images), generator, images) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, generator: torch.Generator, *, reach: int) -> Tensor:
    """Moves each picture of (b, 3, s, s) by up to `reach` pixels each way, its border repeated."""
    count, _, height, width = images.shape
    by = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator).to(images.device)
    y = (torch.arange(height, device=images.device) + by[0]).clamp(0, height - 1)
    x = (torch.arange(width, device=images.device) + by[1]).clamp(0, width - 1)
    rows = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def jitter(images: Tensor, generator: torch.Generator, *, brightness: float, contrast: float) -> Tensor:
    """Scales brightness, and contrast about the picture's mean, by 1 +- up to so much, within [0, 1]."""
    bright, strong = 1 + (2 * _uniform((2, len(images), 1, 1, 1), generator, images) - 1) * torch.tensor(
        [brightness, contrast], device=images.device
    ).view(2, 1, 1, 1, 1)
    images = images * bright
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * strong).clamp(0, 1)


def _uniform(shape, generator: torch.Generator, like: Tensor) -> Tensor:
    # Drawn on the CPU, so that a GPU sees the same augmentations.
    return torch.rand(shape, generator=generator).to(like.device)
