"""Augmentations of an image's colours."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bob.backbones._augment import Numbers, Step, channels, chosen

__all__ = ["ColourJitter", "Grey", "Solarise", "blend", "grey", "turn_hue"]


@dataclass(frozen=True, kw_only=True)
class ColourJitter(Step):
    """Torchvision's ColorJitter, with probability `chance`; one random order of its four steps for the batch."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    chance: float

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        amounts = 2 * torch.rand((4, count), generator=generator).T - 1
        order = torch.randperm(4, generator=generator).expand(count, 4)
        return torch.cat([amounts, order, chosen(count, generator, self.chance)], 1)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        steps = (
            lambda x: (x * (1 + self.brightness * numbers.column(0))).clamp(0, 1),
            lambda x: blend(grey(x).mean((1, 2, 3), keepdim=True), x, 1 + self.contrast * numbers.column(1)),
            lambda x: blend(grey(x), x, 1 + self.saturation * numbers.column(2)),
            lambda x: turn_hue(x, self.hue * numbers.column(3)),
        )
        jittered = images
        for step in numbers.host[0, 4:8].int().tolist():
            jittered = steps[step](jittered)
        return torch.where(numbers.column(8) > 0, jittered, images)


@dataclass(frozen=True, kw_only=True)
class Grey(Step):
    """Takes the colour out of an image with probability `chance`."""

    chance: float

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        return chosen(count, generator, self.chance)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        return torch.where(numbers.column(0) > 0, grey(images).expand_as(images), images)


@dataclass(frozen=True, kw_only=True)
class Solarise(Step):
    """Inverts all values of at least `threshold`, with probability `chance`."""

    threshold: float
    chance: float

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        return torch.where(chosen(count, generator, self.chance), self.threshold, torch.inf)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        return torch.where(images >= numbers.column(0), 1 - images, images)


def blend(other: Tensor, images: Tensor, amount: Tensor | float) -> Tensor:
    """Linear blend from `other` (amount 0) to the images (amount 1) and beyond, clamped to [0, 1]."""
    return (other + (images - other) * amount).clamp(0, 1)


def grey(images: Tensor) -> Tensor:
    """Luma (b, 1, h, w) of images (b, 3, h, w), by ITU-R 601."""
    return (images * channels(images, [0.299, 0.587, 0.114])).sum(1, keepdim=True)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotates the hue of each image by `turns` full turns, (b, 1, 1, 1); keeps saturation and value."""
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    spread = high - low
    red, green, blue = images.split(1, 1)
    safe = torch.where(spread == 0, 1, spread)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    k = (channels(images, [5.0, 3.0, 1.0]) + sector + 6 * turns) % 6
    return high - spread * torch.minimum(k, 4 - k).clamp(0, 1)
