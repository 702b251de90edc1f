"""RandAugment of a batch, in torchvision's variant (DataDream) and timm's (MAE).

Images with the same random operation, or with any affine one, are processed together, each with its own strength. Which
those are is drawn on the CPU, so that the sizes of the groups are known there; their rows are among the numbers that
are sent to a GPU.

Source: Cubuk et al. 2020, arXiv:1909.13719; operations, strengths and ranges as in the two libraries.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample
from torchvision.transforms.v2 import functional

from bob.backbones._augment import Numbers, Step, channels
from bob.backbones._colours import blend, grey

__all__ = ["TIMM", "TORCHVISION", "Policy", "RandAugment", "apply", "parameters"]

_LAYERS = 2  # operations per image
_PARAMETERS = 6
"""Numbers that an operation takes: the entries of an affine matrix, or one amount."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Candidate operations and their strength."""

    operations: tuple[str, ...]
    level: float
    """Mean strength in [0, 1]."""
    deviation: float
    """Standard deviation of the strength among images."""
    chance: float
    """Probability that a chosen operation is applied."""
    translate: float
    """Translation at level 1, as a share of the image's width."""
    bits: tuple[float, float]
    """Posterize keeps bits[0] - bits[1] * level, the product rounded down."""
    fill: tuple[float, float, float]
    """Colour beyond the image's border."""
    mode: str
    """Interpolation of warped images: nearest or bicubic."""


_SHARED = (
    *("autocontrast", "equalize", "rotate", "posterize", "solarize", "color", "contrast"),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
TORCHVISION = Policy(
    operations=("identity", *_SHARED),
    level=9 / 30,
    deviation=0.0,
    chance=1.0,
    translate=150 / 331,
    bits=(8, 4),
    fill=(0.0, 0.0, 0.0),
    mode="nearest",
)
"""RandAugment(num_ops=2, magnitude=9)."""
TIMM = Policy(
    operations=("invert", "solarize_add", *_SHARED),
    level=0.9,
    deviation=0.05,
    chance=0.5,
    translate=0.45,
    bits=(4, 4),
    fill=(124 / 255, 116 / 255, 104 / 255),
    mode="bicubic",
)
"""rand-m9-mstd0.5-inc1, with which MAE fine-tunes; the border is ImageNet's mean."""


@dataclass(frozen=True, kw_only=True)
class RandAugment(Step):
    """Applies two random operations of the policy to each image, one after the other."""

    policy: Policy
    """TORCHVISION or TIMM."""
    whole: ClassVar[bool] = True

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """For each layer: group of operations, row in the order of groups, parameters."""
        return torch.cat([self._layer(count, generator) for _ in range(_LAYERS)], 1)

    def _layer(self, count: int, generator: torch.Generator) -> Tensor:
        policy = self.policy
        which = torch.randint(len(policy.operations), (count,), generator=generator)
        level = policy.level + policy.deviation * torch.randn(count, generator=generator)
        sign = 1 - 2.0 * (torch.rand(count, generator=generator) < 0.5)
        which[torch.rand(count, generator=generator) >= policy.chance] = len(policy.operations)  # none
        given = torch.zeros(count, _PARAMETERS)
        for number, name in enumerate(policy.operations):
            rows = (which == number).nonzero()[:, 0]
            if len(rows):
                amount = _amount(name, level[rows].clamp(0, 1), sign[rows], policy)
                given[rows] = parameters(name, amount)
        group = torch.tensor([*map(_GROUPS.index, map(_group, policy.operations)), len(_GROUPS)])[which]
        return torch.cat([group[:, None], group.argsort(stable=True)[:, None], given], 1)

    def apply(self, images: Tensor, numbers: Numbers) -> Tensor:
        augmented = images.clone()
        layers = zip(numbers.host.chunk(_LAYERS, 1), numbers.values.chunk(_LAYERS, 1), strict=True)
        for host, values in layers:
            counts = torch.bincount(host[:, 0].int(), minlength=len(_GROUPS)).tolist()
            order, stop = values[:, 1].long(), 0
            for name, count in zip(_GROUPS, counts, strict=False):  # the last are those that nothing is applied to
                start, stop = stop, stop + count
                if count and name != "identity":
                    rows = order[start:stop]
                    augmented[rows] = apply(name, augmented[rows], values[rows, 2:], self.policy)
        return augmented


def _amount(name: str, level: Tensor, sign: Tensor, policy: Policy) -> Tensor:
    """Amounts (k,) for `apply`, from strengths in [0, 1] and signs."""
    if name.startswith("translate"):
        return policy.translate * level * sign
    if name.startswith("shear"):
        return 0.3 * level * sign
    if name == "rotate":
        return 30 * level * sign
    if name == "posterize":
        return policy.bits[0] - (policy.bits[1] * level).floor()
    if name == "solarize":
        return 1 - level
    if name == "solarize_add":
        return (110 * level).floor().clamp(max=128) / 255
    return (1 + 0.9 * level * sign).clamp(min=0.1)


def parameters(name: str, amount: Tensor) -> Tensor:
    """Parameters (k, 6) of one operation from amounts (k,): an affine matrix, or the amount six times."""
    if name in _WARPS:
        return _WARPS[name](amount).flatten(1)
    return amount[:, None].expand(-1, _PARAMETERS)


def apply(name: str, images: Tensor, given: Tensor, policy: Policy) -> Tensor:
    """Applies one operation, or several affine ones (`warp`), to images (k, 3, s, s) in [0, 1], with `parameters`."""
    if _group(name) == _WARP:
        return _warp(images, given.unflatten(1, (2, 3)), policy)
    return _COLOURS[name](images, given[:, :1, None, None])


def _warp(images: Tensor, matrix: Tensor, policy: Policy) -> Tensor:
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    fill = channels(images, policy.fill)
    return (grid_sample(images - fill, grid, mode=policy.mode, align_corners=False) + fill).clamp(0, 1)


def _matrix(*entries: Tensor | float) -> Tensor:
    """Affine matrices (k, 2, 3) of six entries, in coordinates from -1 to 1."""
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    columns = [entry if isinstance(entry, Tensor) else torch.full_like(like, entry) for entry in entries]
    return torch.stack(columns, 1).view(-1, 2, 3)


def _rotation(degrees: Tensor) -> Tensor:
    turn = degrees * (math.pi / 180)
    return _matrix(turn.cos(), -turn.sin(), 0.0, turn.sin(), turn.cos(), 0.0)


_WARPS: dict[str, Callable[[Tensor], Tensor]] = {
    "rotate": _rotation,
    "shear_x": lambda a: _matrix(1.0, a, a, 0.0, 1.0, 0.0),  # keeps the upper border fixed
    "shear_y": lambda a: _matrix(1.0, 0.0, 0.0, a, 1.0, a),
    "translate_x": lambda a: _matrix(1.0, 0.0, 2 * a, 0.0, 1.0, 0.0),
    "translate_y": lambda a: _matrix(1.0, 0.0, 0.0, 0.0, 1.0, 2 * a),
}


def _posterized(images: Tensor, bits: Tensor) -> Tensor:
    step = 2 ** (8 - bits)
    return ((images * 255).round() / step).floor() * step / 255


def _smooth(images: Tensor) -> Tensor:
    kernel = images.new_ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = conv2d(images, kernel / 13, groups=3)  # as in PIL, the border stays
    return smooth


def _equalized(images: Tensor) -> Tensor:
    return functional.equalize((images * 255).round().to(torch.uint8)).float() / 255


_COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda x, _: functional.autocontrast(x),
    "equalize": lambda x, _: _equalized(x),
    "invert": lambda x, _: 1 - x,
    "posterize": _posterized,
    "solarize": lambda x, a: torch.where(x >= a, 1 - x, x),
    "solarize_add": lambda x, a: torch.where(x < 128 / 255, (x + a).clamp(max=1), x),
    "color": lambda x, a: blend(grey(x), x, a),
    "contrast": lambda x, a: blend(grey(x).mean((1, 2, 3), keepdim=True), x, a),
    "brightness": lambda x, a: (x * a).clamp(0, 1),
    "sharpness": lambda x, a: blend(_smooth(x), x, a),
}

_WARP = "warp"
_GROUPS = ("identity", *_COLOURS, _WARP)
"""What is computed together: one operation on colours, or all those that an affine matrix describes."""


def _group(name: str) -> str:
    return _WARP if name in _WARPS else name
