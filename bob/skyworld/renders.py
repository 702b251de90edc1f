"""Data sets of rendered pictures and their labels, cached in a work folder."""

import multiprocessing
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bob.backbones import _augment
from bob.core.seeds import derive
from bob.datasets import _render, _skyworld
from bob.skyworld import models

__all__ = ["TRAIN", "as_batch", "augmented", "cached", "renders"]

TRAIN = 48_000
"""Number of pre-training pictures: 800 of each base class, 147 MB as uint8."""


def renders(count: int, *, purpose: str, classes: tuple[str, ...] = _skyworld.BASE) -> tuple[np.ndarray, np.ndarray]:
    """Renders pictures with uniform classes and contexts.

    Args:
        count: number of pictures.
        purpose: key of the random draw: training and evaluation share no picture.
        classes: names of the classes; empty: each picture shows another aircraft of `_skyworld.unnamed`.

    Returns:
        Pixels, uint8 (count, SIDE, SIDE, 3), and (class, background, pose) indices, (count, 3). The
        class is an index of `classes`, or the number of the unnamed aircraft.
    """
    jobs = [(purpose, k, classes) for k in range(count)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pairs = pool.map(_one, jobs, chunksize=500)
    return np.stack([pixels for pixels, _ in pairs]), np.array([labels for _, labels in pairs])


def cached(
    work: Path, count: int, purpose: str, classes: tuple[str, ...] = _skyworld.BASE
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `renders`, computed once and kept in `work`."""
    path = work / f"renders-{purpose}-{count}.npz"
    if not path.exists():
        pixels, labels = renders(count, purpose=purpose, classes=classes)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, pixels=pixels, labels=labels)
        temporary.replace(path)
    arrays = np.load(path)
    return arrays["pixels"], arrays["labels"]


def as_batch(pixels: np.ndarray, rows: Tensor) -> Tensor:
    """Converts rows of a uint8 array to float (b, 3, SIDE, SIDE) in [-1, 1], channels last."""
    images = torch.from_numpy(pixels[rows.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shifts a batch by up to 2 pixels and mirrors half of it, with its (class, background, pose) labels."""
    images = _augment.augment(images, generator, [_augment.Shift(reach=2)])
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    labels = labels.clone()
    labels[:, 2] ^= mirrored  # poses come in pairs, left then right
    return images.contiguous(memory_format=torch.channels_last), labels


def _one(job: tuple[str, int, tuple[str, ...]]) -> tuple[np.ndarray, tuple[int, int, int]]:
    purpose, k, classes = job
    draw = random.Random(derive("skyworld", purpose, k))
    background, pose = (int(draw.random() * len(names)) for names in (_skyworld.BACKGROUNDS, _skyworld.POSES))
    class_id = k % len(classes) if classes else k
    picture = _render.render(
        classes[class_id] if classes else _skyworld.unnamed(k),
        _skyworld.BACKGROUNDS[background],
        _skyworld.POSES[pose],
        seed=derive("skyworld", purpose, "nuisance", k),
        size=models.SIDE,
    )
    return np.asarray(picture), (class_id, background, pose)
