"""Augmentations of a batch as tensor operations, with random parameters for each image.

Each augmentation is a `Step`. `augment` draws the random numbers of all steps on the CPU, a few floats an image, sends
them to the images' device in one copy, and works there: a GPU never waits for the CPU, and gets the CPU's numbers.
"""

import abc
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bob.core.transfer import send

__all__ = [
    *("Blur", "Erase", "Flip", "Jitter", "Numbers", "ResizedCrop", "Shift", "Step"),
    *("augment", "channels", "chosen", "picked_first"),
]

_CACHE = 10 << 20
"""Bytes of images that a CPU takes through several steps at once, so that they stay in its cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers:
    """Random numbers of one step for a batch, a row for each image."""

    host: Tensor
    """float32 (b, n) on the CPU, which says how many images a step changes: sizes of its results."""
    values: Tensor
    """The same on the images' device."""
    generator: torch.Generator
    """On the CPU, for noise on images that lie there."""

    def column(self, index: int) -> Tensor:
        """One number of each image, (b, 1, 1, 1)."""
        return self.values[:, index, None, None, None]


class Step(abc.ABC):
    """An augmentation of each image of a batch for itself, by numbers that are drawn before."""

    whole: ClassVar[bool] = False
    """Whether the step picks images among all of the batch, so that the batch has to stay together."""

    def side(self, side: int) -> int:
        """Side of its results in pixels, for images of a side."""
        return side

    @abc.abstractmethod
    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Random numbers for `count` images of a side, float32 (count, n), from a generator on the CPU."""

    @abc.abstractmethod
    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        """float (b, 3, s, s) in [0, 1] -> the same with the step's side; a new tensor, or the images unchanged."""


def augment(images: Tensor, generator: torch.Generator, steps: Sequence[Step]) -> Tensor:
    """Applies the steps one after another.

    Args:
        images: float (b, 3, s, s) in [0, 1].
        generator: on the CPU.
        steps: in order.

    Returns:
        float (b, 3, t, t) in [0, 1], t the side of the last step's results.
    """
    drawn, side = list[Tensor](), images.shape[-1]
    for step in steps:
        drawn.append(step.draw(len(images), side, generator).float())
        side = step.side(side)
    host = torch.cat(drawn, 1)
    values, widths = send(host, images.device), [one.shape[1] for one in drawn]
    parts = zip(host.split(widths, 1), values.split(widths, 1), strict=True)
    numbers = [Numbers(host=ours, values=theirs, generator=generator) for ours, theirs in parts]
    for whole, group in itertools.groupby(zip(steps, numbers, strict=True), lambda pair: pair[0].whole):
        images = _together(images, list(group), many=1 if whole else _chunks(images))
    return images


def _chunks(images: Tensor) -> int:
    """Into how many parts a batch is divided; bits are those of the whole batch, times are those of the cache."""
    wanted = math.ceil(4 * images.numel() / _CACHE) if images.device.type == "cpu" else 1
    return min(wanted, len(images))


def _together(images: Tensor, steps: Sequence[tuple[Step, Numbers]], *, many: int) -> Tensor:
    """Images after some steps, each of `many` parts of the batch taken through all of them."""
    made = []
    for rows in torch.arange(len(images)).tensor_split(many):
        span = slice(int(rows[0]), int(rows[-1]) + 1)
        part = images[span]
        for step, numbers in steps:
            mine = Numbers(host=numbers.host[span], values=numbers.values[span], generator=numbers.generator)
            part = step.apply(part, mine)
        made.append(part)
    return torch.cat(made) if len(made) > 1 else made[0]


def chosen(count: int, generator: torch.Generator, chance: float) -> Tensor:
    """Column (b, 1) that is 1 for each image with probability `chance`, else 0."""
    return (torch.rand(count, generator=generator) < chance)[:, None]


def picked_first(picked: Tensor) -> Tensor:
    """Column (b, 1) of the batch's rows: first those where `picked`, a column of 0 and 1, is 1."""
    return torch.argsort(picked[:, 0].int(), descending=True, stable=True)[:, None]


def channels(like: Tensor, values: Sequence[float]) -> Tensor:
    """A number for each channel, (1, 3, 1, 1), made on the device of `like`: the CPU would wait for a copy."""
    return torch.cat([like.new_full((1, 1, 1, 1), value) for value in values], 1)


@dataclass(frozen=True, kw_only=True)
class Flip(Step):
    """Mirrors each image left to right with probability 1/2."""

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        return chosen(count, generator, 0.5)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        return torch.where(numbers.column(0) > 0, images.flip(-1), images)


@dataclass(frozen=True, kw_only=True)
class Shift(Step):
    """Shifts each image by up to `reach` pixels in each direction, its border repeated."""

    reach: int

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        return torch.randint(-self.reach, self.reach + 1, (2, count, 1), generator=generator)[..., 0].T

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        side, offsets = images.shape[-1], numbers.values.long().T[:, :, None]
        y, x = (torch.arange(side, device=images.device) + offsets).clamp(0, side - 1)
        rows = torch.arange(len(images), device=images.device)[:, None, None]
        return images.permute(0, 2, 3, 1)[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Jitter(Step):
    """Scales brightness, then contrast about the mean, by random factors of 1 +- `brightness` and `contrast`."""

    brightness: float
    contrast: float

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand((2, count), generator=generator).T
        return 1 + (2 * uniform - 1) * torch.tensor([self.brightness, self.contrast])

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        images = images * numbers.column(0)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return (mean + (images - mean) * numbers.column(1)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class ResizedCrop(Step):
    """Random crop of each image, its aspect ratio 3:4 to 4:3, resized by an antialiased bicubic filter.

    Source: torchvision's RandomResizedCrop with PIL's filter, as products of matrices.
    """

    size: int
    """Side of the result in pixels."""
    scale: tuple[float, float]
    """Smallest and largest share of the image's area."""

    def side(self, side: int) -> int:
        return self.size

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """The first of ten random boxes that fits, else the whole image: (top, left, height, width)."""
        area, form, y, x = torch.rand((4, count, 10), generator=generator, dtype=torch.float64)
        area = side * side * (self.scale[0] + (self.scale[1] - self.scale[0]) * area)
        ratio = torch.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * form)
        wide, high = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (wide >= 1) & (wide <= side) & (high >= 1) & (high <= side)
        best = fits.int().argmax(1, keepdim=True)
        any_fits = fits.any(1)
        high = torch.where(any_fits, high.gather(1, best)[:, 0], side)
        wide = torch.where(any_fits, wide.gather(1, best)[:, 0], side)
        top, left = (y[:, 0] * (side - high + 1)).floor(), (x[:, 0] * (side - wide + 1)).floor()
        return torch.stack([top, left, high, wide], 1)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        # In float32 a position errs by 2e-5 pixels at most. A GPU is spared the bytes, and has few float64 units.
        dtype = torch.float64 if images.device.type == "cpu" else torch.float32
        top, left, high, wide = numbers.values.to(dtype).unbind(1)
        rows = filters(top, high, images.shape[-2], self.size).to(images.dtype)
        columns = filters(left, wide, images.shape[-1], self.size).to(images.dtype)
        return (rows[:, None] @ images @ columns[:, None].mT).clamp(0, 1)


def filters(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (b, size, side): row k weighs the pixels in [start, start + length) for the result's pixel k."""
    ratio = (length / size)[:, None, None]
    result, pixel = (torch.arange(n, dtype=start.dtype, device=start.device) for n in (size, side))
    centre = start[:, None, None] + (result[None, :, None] + 0.5) * ratio
    x = ((pixel + 0.5 - centre) / ratio.clamp(min=1)).abs()
    weight = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2) * (x < 2)
    weight = weight * ((pixel >= start[:, None, None]) & (pixel < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Blur(Step):
    """Gaussian blur with probability `chance`, its sigma in pixels uniform in the range `sigma`."""

    sigma: tuple[float, float]
    chance: float
    whole: ClassVar[bool] = True

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        low, high = self.sigma
        width = low + (high - low) * torch.rand((count, 1), generator=generator)
        picked = chosen(count, generator, self.chance)
        return torch.cat([picked, width, picked_first(picked)], 1)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        count = int(numbers.host[:, 0].sum())
        if not count:
            return images
        rows = numbers.values[:count, 2].long()
        width = numbers.values[:, 1][rows][:, None, None]
        position = torch.arange(images.shape[-1], device=images.device)
        weights = torch.exp(-0.5 * ((position[:, None] - position) / width) ** 2)  # (count, s, s)
        weights = (weights / weights.sum(-1, keepdim=True))[:, None]
        return images.index_copy(0, rows, weights @ images[rows] @ weights.mT)


@dataclass(frozen=True, kw_only=True)
class Erase(Step):
    """Random erasing with probability `chance`: a box of 2 to 33 % of an image becomes noise, N(0, 1) once normalised.

    On a CPU the noise is the generator's; on a GPU, which would wait for so many numbers, it is that of the GPU's own
    global generator, which the caller seeds. Source: timm's RandomErasing in mode `pixel`, the box's aspect ratio 3:10
    to 10:3. Values are clamped to [0, 1].
    """

    chance: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    whole: ClassVar[bool] = True

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        area, form, y, x = torch.rand((4, count), generator=generator)
        area = side * side * (0.02 + (1 / 3 - 0.02) * area)
        ratio = torch.exp(math.log(0.3) * (1 - 2 * form))
        high = (area * ratio).sqrt().round().clamp(max=side - 1)
        wide = (area / ratio).sqrt().round().clamp(max=side - 1)
        top, left = (y * (side - high + 1)).floor(), (x * (side - wide + 1)).floor()
        picked = chosen(count, generator, self.chance)
        edges = torch.stack([top, top + high, left, left + wide], 1)
        return torch.cat([picked, picked_first(picked), edges], 1)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        count = int(numbers.host[:, 0].sum())
        if not count:
            return images
        rows = numbers.values[:count, 1].long()
        top, bottom, left, right = numbers.values[rows][:, 2:, None].unbind(1)
        y, x = (torch.arange(n, device=images.device) for n in images.shape[-2:])
        box = ((y >= top) & (y < bottom))[:, None, :, None] & ((x >= left) & (x < right))[:, None, None, :]
        generator = numbers.generator if images.device.type == "cpu" else None
        shape = (count, *images.shape[1:])
        noise = torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)
        noise = noise * channels(images, self.std) + channels(images, self.mean)
        return images.index_copy(0, rows, torch.where(box, noise.clamp(0, 1), images[rows]))
