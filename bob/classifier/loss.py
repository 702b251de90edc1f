"""The downstream training recipe in plain functions: batches, MixUp and CutMix, Eq. 1, schedule."""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["batches", "cutmix", "learning_rate", "loss", "mix", "mixup", "smoothed"]


def learning_rate(step: int, *, steps: int, warmup: int, start: float, peak: float, floor: float) -> float:
    """Linear from `start` to `peak` over `warmup` steps, then half a cosine to `floor` at the last.

    Args:
        step: 0-based, below `steps`.
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def batches(
    real: int, synthetic: int, *, copies: int, batch: int, generator: torch.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """One epoch: rows of the real and of the synthetic images of each step.

    Both are drawn without replacement and dealt evenly, so every batch has the epoch's ratio of
    them to within one image, and none is short or lacks a part.

    Args:
        real: how many real images there are, each of which enters `copies` times.
        synthetic: how many synthetic images there are, each of which enters once.
        batch: images of a step at most, unless that is fewer than one of each part.
    """
    rows = torch.arange(real).repeat(copies)
    rows = rows[torch.randperm(len(rows), generator=generator)].numpy()
    drawn = torch.randperm(synthetic, generator=generator).numpy()
    steps = math.ceil((len(rows) + len(drawn)) / batch)
    return list(zip(np.array_split(rows, steps), np.array_split(drawn, steps)[::-1], strict=True))


def loss(real: Tensor, real_targets: Tensor, synthetic: Tensor, synthetic_targets: Tensor, *, lam: float) -> Tensor:
    """Eq. 1 of one batch, each cross-entropy a mean over its own part.

        lam * CE(real) + (1 - lam) * CE(synthetic)

    Args:
        real: logits (r, classes); r may be 0, then the part contributes 0.
        real_targets: label distributions (r, classes), rows summing to 1.
        synthetic: logits (s, classes); s may be 0, then the part contributes 0.
        synthetic_targets: label distributions (s, classes).
        lam: weight of the real part; 1 for a data set without synthetic images.

    Returns:
        Scalar in float32, in nats.

    Source: arXiv:2510.24078, Eq. 1; DataDream, arXiv:2407.10910, for the means over the parts.
    """
    return lam * _cross_entropy(real, real_targets) + (1 - lam) * _cross_entropy(synthetic, synthetic_targets)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    # max(1, ...): the mean over an empty part is 0, where torch's is NaN.
    return -(targets * logits.float().log_softmax(1)).sum() / max(1, len(logits))


def smoothed(targets: Tensor, amount: float) -> Tensor:
    """Label distributions (b, classes) of which so much is spread evenly over all classes."""
    return targets * (1 - amount) + amount / targets.shape[1]


def mix(
    images: Tensor, targets: Tensor, generator: torch.Generator, *, use_mixup: bool = True, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix, one of them at random, of a part within itself.

    Args:
        images: float (b, 3, h, w); a part of fewer than two comes back as it is.
        targets: label distributions (b, classes).
        generator: on the CPU.
        use_mixup: False leaves CutMix alone (the Diff-Mix rows).
        alpha: MixUp's.
    """
    if len(images) < 2:
        return images, targets
    coin = float(torch.rand((), generator=generator))
    if use_mixup and coin < 0.5:
        return mixup(images, targets, generator, alpha=alpha)
    return cutmix(images, targets, generator)


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator, *, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Each image and target averaged with its neighbour's, by one share drawn from Beta(alpha, alpha).

    Source: Zhang et al. 2018, arXiv:1710.09412; the neighbour is the previous row, as in torchvision.
    """
    share = float(torch.rand((), generator=generator))
    if alpha != 1.0:  # Beta(1, 1) is uniform; others by inversion, so that one generator gives all randomness
        from scipy.special import betaincinv

        share = float(betaincinv(alpha, alpha, share))
    return torch.lerp(images.roll(1, 0), images, share), torch.lerp(targets.roll(1, 0), targets, share)


def cutmix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One box, the same in all images, taken from the neighbour; targets mix by its true area.

    Source: Yun et al. 2019, arXiv:1905.04899, alpha = 1; the box as in torchvision.
    """
    height, width = images.shape[-2:]
    share, x, y = torch.rand(3, generator=generator).tolist()
    half = 0.5 * (1 - share) ** 0.5
    top, bottom = max(0, int((y - half) * height)), min(height, int((y + half) * height))
    left, right = max(0, int((x - half) * width)), min(width, int((x + half) * width))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets.roll(1, 0), targets, kept)
