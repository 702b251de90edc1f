"""Augmentations of a batch as tensor operations, with random parameters for each image.

They run on the images' device; random numbers come from a CPU generator, so that all devices get the same.
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
    """Mirrors each image of (b, 3, h, w) left to right with probability 1/2."""
    return torch.where(chosen(images, generator, 0.5), images.flip(-1), images)


def shift(images: Tensor, generator: torch.Generator, *, reach: int) -> Tensor:
    """Shifts each image of (b, 3, s, s) by up to `reach` pixels in each direction, its border repeated."""
    count, _, height, width = images.shape
    offsets = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator).to(images.device)
    y = (torch.arange(height, device=images.device) + offsets[0]).clamp(0, height - 1)
    x = (torch.arange(width, device=images.device) + offsets[1]).clamp(0, width - 1)
    rows = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def jitter(images: Tensor, generator: torch.Generator, *, brightness: float, contrast: float) -> Tensor:
    """Scales brightness, then contrast about the mean, by random factors of 1 +- `brightness` and `contrast`."""
    gain, stretch = 1 + (2 * _uniform((2, len(images), 1, 1, 1), generator, images) - 1) * torch.tensor(
        [brightness, contrast], device=images.device
    ).view(2, 1, 1, 1, 1)
    images = images * gain
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * stretch).clamp(0, 1)


def resized_crop(images: Tensor, generator: torch.Generator, *, size: int, scale: tuple[float, float]) -> Tensor:
    """Random crop of each image, its aspect ratio 3:4 to 4:3, resized by an antialiased bicubic filter.

    Args:
        images: float (b, 3, s, s) in [0, 1].
        generator: on the CPU.
        size: side of the result in pixels.
        scale: smallest and largest share of the image's area.

    Returns:
        float (b, 3, size, size) in [0, 1].

    Source: torchvision's RandomResizedCrop with PIL's filter, as products of matrices.
    """
    height, width = images.shape[-2:]
    top, left, high, wide = _boxes(len(images), height, width, scale, generator)
    rows = _filters(top, high, height, size).to(images)
    columns = _filters(left, wide, width, size).to(images)
    return (rows[:, None] @ images @ columns[:, None].mT).clamp(0, 1)


def _boxes(
    count: int, height: int, width: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first of ten random boxes that fits, else the whole image: (top, left, height, width), each (b,)."""
    area, form, y, x = torch.rand((4, count, 10), generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    ratio = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * form)
    wide, high = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    best = fits.int().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    high = torch.where(any_fits, high.gather(1, best)[:, 0], height)
    wide = torch.where(any_fits, wide.gather(1, best)[:, 0], width)
    return (y[:, 0] * (height - high + 1)).floor(), (x[:, 0] * (width - wide + 1)).floor(), high, wide


def _filters(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (b, size, side): row k weighs the pixels in [start, start + length) for the result's pixel k."""
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
    """Torchvision's ColorJitter, with probability `chance`; one random order of its four steps for the batch."""
    amounts = 2 * _uniform((4, len(images), 1, 1, 1), generator, images) - 1
    steps = (
        lambda x: (x * (1 + brightness * amounts[0])).clamp(0, 1),
        lambda x: blend(grey(x).mean((1, 2, 3), keepdim=True), x, 1 + contrast * amounts[1]),
        lambda x: blend(grey(x), x, 1 + saturation * amounts[2]),
        lambda x: turn_hue(x, hue * amounts[3]),
    )
    jittered = images
    for step in torch.randperm(len(steps), generator=generator).tolist():
        jittered = steps[step](jittered)
    return torch.where(chosen(images, generator, chance), jittered, images)


def blend(other: Tensor, images: Tensor, amount: Tensor | float) -> Tensor:
    """Linear blend from `other` (amount 0) to the images (amount 1) and beyond, clamped to [0, 1]."""
    return (other + (images - other) * amount).clamp(0, 1)


def grey(images: Tensor) -> Tensor:
    """Luma (b, 1, h, w) of images (b, 3, h, w), by ITU-R 601."""
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


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
    k = (images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + sector + 6 * turns) % 6
    return high - spread * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(images: Tensor, generator: torch.Generator, *, sigma: tuple[float, float], chance: float) -> Tensor:
    """Gaussian blur with probability `chance`, its sigma in pixels uniform in the range `sigma`."""
    width = sigma[0] + (sigma[1] - sigma[0]) * _uniform((len(images), 1, 1), generator, images)
    position = torch.arange(images.shape[-1], device=images.device)
    weights = torch.exp(-0.5 * ((position[:, None] - position) / width) ** 2)  # (b, s, s)
    weights = (weights / weights.sum(-1, keepdim=True))[:, None]
    return torch.where(chosen(images, generator, chance), weights @ images @ weights.mT, images)


def solarise(images: Tensor, generator: torch.Generator, *, threshold: float, chance: float) -> Tensor:
    """Inverts all values of at least `threshold`, with probability `chance`."""
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
    """Random erasing with probability `chance`: a box of 2 to 33 % of an image becomes noise, N(0, 1) once normalised.

    Source: timm's RandomErasing in mode `pixel`, the box's aspect ratio 3:10 to 10:3. Values are clamped to [0, 1].
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
    erased, selected = images.clone(), picked.nonzero()[:, 0].to(images.device)
    noise = torch.randn((int(picked.sum()), *images.shape[1:]), generator=generator).to(images)
    noise = noise * images.new_tensor(std).view(1, 3, 1, 1) + images.new_tensor(mean).view(1, 3, 1, 1)
    erased[selected] = torch.where(box[picked].to(images.device), noise.clamp(0, 1), images[selected])
    return erased


def chosen(images: Tensor, generator: torch.Generator, chance: float) -> Tensor:
    """Mask (b, 1, 1, 1), true for each image with probability `chance`."""
    return _uniform((len(images),), generator, images)[:, None, None, None] < chance


def _uniform(shape, generator: torch.Generator, like: Tensor) -> Tensor:
    """Random numbers in [0, 1) from a CPU generator, on the device of `like`."""
    return torch.rand(shape, generator=generator).to(like.device)
