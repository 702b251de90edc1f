"""Equation 1 and the rest of the classifier's recipe as plain functions: batches, MixUp, CutMix, learning rate."""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["batches", "cutmix", "learning_rate", "mix", "mixup", "smoothed", "weighted_cross_entropy"]


def learning_rate(step: int, *, steps: int, warmup: int, start: float, peak: float, floor: float) -> float:
    """Learning rate of one step: linear from `start` to `peak`, then half a cosine to `floor` at the last step.

    Args:
        step: 0-based, below `steps`.
        steps: number of steps of the whole training.
        warmup: number of steps of the linear part.
        start: rate of the first step of the warm-up.
        peak: rate after the warm-up.
        floor: rate of the last step.
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def batches(
    real: int, synthetic: int, *, copies: int, batch: int, generator: torch.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of one epoch: for each step the rows of its real and of its synthetic images.

    Both are shuffled without replacement and split evenly, so every batch has the epoch's ratio of real to synthetic
    to within one image, and none is short or lacks a part.

    Args:
        real: number of real images, each shown `copies` times.
        synthetic: number of synthetic images, each shown once.
        copies: see `Data.copies`.
        batch: most images of a step, unless that is fewer than one of each part.
        generator: on the CPU.
    """
    real_rows = torch.arange(real).repeat(copies)
    real_rows = real_rows[torch.randperm(len(real_rows), generator=generator)].numpy()
    synthetic_rows = torch.randperm(synthetic, generator=generator).numpy()
    steps = math.ceil((len(real_rows) + len(synthetic_rows)) / batch)
    return list(zip(np.array_split(real_rows, steps), np.array_split(synthetic_rows, steps)[::-1], strict=True))


def weighted_cross_entropy(
    real: Tensor, real_targets: Tensor, synthetic: Tensor, synthetic_targets: Tensor, *, lam: float
) -> Tensor:
    """Equation 1 of the paper on one batch: the weighted sum of two cross-entropies, each a mean over its own part.

        lam * CE(real) + (1 - lam) * CE(synthetic)

    Args:
        real: logits (r, classes); an empty part contributes 0.
        real_targets: label distributions (r, classes), rows summing to 1.
        synthetic: logits (s, classes); an empty part contributes 0.
        synthetic_targets: label distributions (s, classes).
        lam: weight of the real part; 1 for a data set without synthetic images. A sweep tries each of
            `SweepSettings.lambdas` (`bob/core/settings.py`): each is the `lam` of a `Point`, which the trainer passes.

    Returns:
        Scalar in float32, in nats.

    Source: arXiv:2510.24078, sec. 4.1, Eq. 1; DataDream, arXiv:2407.10910, for the means over the parts.
    """
    return lam * _cross_entropy(real, real_targets) + (1 - lam) * _cross_entropy(synthetic, synthetic_targets)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    # max(1, ...): the mean over an empty part is 0, where torch's is NaN.
    return -(targets * logits.float().log_softmax(1)).sum() / max(1, len(logits))


def smoothed(targets: Tensor, amount: float) -> Tensor:
    """Label smoothing: `amount` of each label distribution (b, classes) is spread evenly over all classes."""
    return targets * (1 - amount) + amount / targets.shape[1]


def mix(
    images: Tensor, targets: Tensor, generator: torch.Generator, *, use_mixup: bool = True, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix, chosen at random, among the images of one part of a batch.

    Args:
        images: float (b, 3, h, w); fewer than two are returned unchanged.
        targets: label distributions (b, classes).
        generator: on the CPU.
        use_mixup: False allows CutMix only (the Diff-Mix rows).
        alpha: both parameters of MixUp's Beta distribution.
    """
    if len(images) < 2:
        return images, targets
    coin = float(torch.rand((), generator=generator))
    if use_mixup and coin < 0.5:
        return mixup(images, targets, generator, alpha=alpha)
    return cutmix(images, targets, generator)


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator, *, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """MixUp: each image and target interpolated with its neighbour's, by one share drawn from Beta(alpha, alpha).

    Source: Zhang et al. 2018, arXiv:1710.09412; the neighbour is the previous row, as in torchvision.
    """
    share = float(torch.rand((), generator=generator))
    if alpha != 1.0:  # Beta(1, 1) is uniform; others by inversion, so that one generator gives all randomness
        from scipy.special import betaincinv

        share = float(betaincinv(alpha, alpha, share))
    return torch.lerp(images.roll(1, 0), images, share), torch.lerp(targets.roll(1, 0), targets, share)


def cutmix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """CutMix: one box, the same in all images, pasted from the neighbour; targets mix by the box's true area.

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
