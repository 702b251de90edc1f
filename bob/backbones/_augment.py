"""Augmentations of a whole batch as tensor operations, each picture for itself, drawn from a given generator.

They run where the pictures are; what is drawn is drawn on the CPU, so that a GPU sees the same.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "blend",
    "blur",
    "chosen",
    "colour_jitter",
    "erase",
    "flip",
    "grey",
    "jitter",
    "resized_crop",
    "shift",
    "solarise",
    "turn_hue",
]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each picture of (b, 3, h, w) left to right with probability a half."""
    return torch.where(chosen(images, generator, 0.5), images.flip(-1), images)


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
    bright, strong = 1 + (2 * _drawn((2, len(images), 1, 1, 1), generator, images) - 1) * torch.tensor(
        [brightness, contrast], device=images.device
    ).view(2, 1, 1, 1, 1)
    images = images * bright
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * strong).clamp(0, 1)


def resized_crop(images: Tensor, generator: torch.Generator, *, size: int, scale: tuple[float, float]) -> Tensor:
    """A random part of each picture, its sides 3:4 to 4:3, resized by an antialiased bicubic filter.

    Args:
        images: float (b, 3, s, s) in [0, 1].
        generator: on the CPU.
        size: side of what comes back, (b, 3, size, size) in [0, 1].
        scale: least and greatest share of the picture's area.

    Source: torchvision's RandomResizedCrop, the filter as PIL's; both as products of matrices.
    """
    height, width = images.shape[-2:]
    top, left, high, wide = _boxes(len(images), height, width, scale, generator)
    rows = _filters(top, high, height, size).to(images)
    columns = _filters(left, wide, width, size).to(images)
    return (rows[:, None] @ images @ columns[:, None].mT).clamp(0, 1)


def _boxes(
    count: int, height: int, width: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first of ten drawn boxes that fits, else the whole picture: (top, left, height, width), each (b,)."""
    area, form, y, x = torch.rand((4, count, 10), generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    ratio = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * form)
    wide, high = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    best = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    high = torch.where(some, high.gather(1, best)[:, 0], height)
    wide = torch.where(some, wide.gather(1, best)[:, 0], width)
    return (y[:, 0] * (height - high + 1)).floor(), (x[:, 0] * (width - wide + 1)).floor(), high, wide


def _filters(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(b, size, side): in each row the weights that the pixels of [start, start + length) have in one of the result."""
    ratio = (length / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size).double()[None, :, None] + 0.5) * ratio
    pixel = torch.arange(side).double()[None, None]
    x = ((pixel + 0.5 - centre) / ratio.clamp(min=1)).abs()
    weight = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2) * (x < 2)
    weight = weight * ((pixel >= start[:, None, None]) & (pixel < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True)


def colour_jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    chance: float,
) -> Tensor:
    """Torchvision's ColorJitter, with probability `chance`; the order of the four is drawn once for the batch."""
    amounts = 2 * _drawn((4, len(images), 1, 1, 1), generator, images) - 1
    steps = (
        lambda x: (x * (1 + brightness * amounts[0])).clamp(0, 1),
        lambda x: blend(grey(x).mean((1, 2, 3), keepdim=True), x, 1 + contrast * amounts[1]),
        lambda x: blend(grey(x), x, 1 + saturation * amounts[2]),
        lambda x: turn_hue(x, hue * amounts[3]),
    )
    made = images
    for step in torch.randperm(len(steps), generator=generator).tolist():
        made = steps[step](made)
    return torch.where(chosen(images, generator, chance), made, images)


def blend(other: Tensor, images: Tensor, amount: Tensor | float) -> Tensor:
    """`other` where `amount` is 0, the pictures where it is 1, beyond them above; within [0, 1]."""
    return (other + (images - other) * amount).clamp(0, 1)


def grey(images: Tensor) -> Tensor:
    """Luma of (b, 3, h, w), ITU-R 601: (b, 1, h, w)."""
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue of each picture by so many full turns, (b, 1, 1, 1); saturation and value stay."""
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    spread = high - low
    red, green, blue = images.split(1, 1)
    safe = torch.where(spread == 0, 1, spread)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    k = (images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + sector + 6 * turns) % 6
    return high - spread * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(images: Tensor, generator: torch.Generator, *, sigma: tuple[float, float], chance: float) -> Tensor:
    """Gaussian blur of a width drawn between two, in pixels, with probability `chance`."""
    width = sigma[0] + (sigma[1] - sigma[0]) * _drawn((len(images), 1, 1), generator, images)
    place = torch.arange(images.shape[-1], device=images.device)
    weights = torch.exp(-0.5 * ((place[:, None] - place) / width) ** 2)  # (b, s, s)
    weights = (weights / weights.sum(-1, keepdim=True))[:, None]
    return torch.where(chosen(images, generator, chance), weights @ images @ weights.mT, images)


def solarise(images: Tensor, generator: torch.Generator, *, threshold: float, chance: float) -> Tensor:
    """Inverts what is at least as bright as `threshold`, with probability `chance`."""
    inverted = torch.where(images >= threshold, 1 - images, images)
    return torch.where(chosen(images, generator, chance), inverted, images)


def erase(
    images: Tensor,
    generator: torch.Generator,
    *,
    chance: float,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Tensor:
    """Noise in one box of 2 to 33 % of each picture, with probability `chance`: N(0, 1) once normalised.

    Source: timm's RandomErasing in mode `pixel`; the box's sides 3:10 to 10:3. What leaves [0, 1] is cut off.
    """
    count, _, height, width = images.shape
    area, form, y, x = torch.rand((4, count), generator=generator)
    area = height * width * (0.02 + (1 / 3 - 0.02) * area)
    ratio = torch.exp(math.log(0.3) * (1 - 2 * form))
    high = (area * ratio).sqrt().round().clamp(max=height - 1)
    wide = (area / ratio).sqrt().round().clamp(max=width - 1)
    top, left = (y * (height - high + 1)).floor(), (x * (width - wide + 1)).floor()
    rows, columns = torch.arange(height), torch.arange(width)
    box = ((rows >= top[:, None]) & (rows < (top + high)[:, None]))[:, None, :, None]
    box = box & ((columns >= left[:, None]) & (columns < (left + wide)[:, None]))[:, None, None, :]
    picked = torch.rand(count, generator=generator) < chance
    made, of = images.clone(), picked.nonzero()[:, 0].to(images.device)
    noise = torch.randn((int(picked.sum()), *images.shape[1:]), generator=generator).to(images)
    noise = noise * images.new_tensor(std).view(1, 3, 1, 1) + images.new_tensor(mean).view(1, 3, 1, 1)
    made[of] = torch.where(box[picked].to(images.device), noise.clamp(0, 1), images[of])
    return made


def chosen(images: Tensor, generator: torch.Generator, chance: float) -> Tensor:
    """(b, 1, 1, 1): true for each picture with probability `chance`."""
    return _drawn((len(images),), generator, images)[:, None, None, None] < chance


def _drawn(shape, generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.rand(shape, generator=generator).to(like.device)
