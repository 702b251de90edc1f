"""Makes the mini checkpoints of skyworld again, from nothing.

    python -m bob.skyworld.pretrain --out weights [--only vae sd captioner resnet] [--threads 2]

Renders the base world, then trains an autoencoder, the U-Net and text encoder on its latents, a
captioner and a ResNet. Seeded; shows progress; the same command resumes.
"""

import argparse
import math
import multiprocessing
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bob.seeds import derive
from bob.skyworld import models, render, training, world

__all__ = ["main", "renders"]

_RENDERS = 48_000  # 800 of each base class: 147 MB as uint8


def renders(count: int, *, purpose: str, classes: tuple[str, ...] = world.BASE) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with uniform classes and contexts.

    Args:
        count: how many.
        purpose: keys the draw, so that training and evaluation never share a picture.
        classes: names to draw from.

    Returns:
        Pixels, uint8 (count, SIDE, SIDE, 3), and (class, background, pose) indices, (count, 3).
    """
    jobs = [(purpose, k, classes) for k in range(count)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.map(_one, jobs, chunksize=500)
    return np.stack([pixels for pixels, _ in made]), np.array([labels for _, labels in made])


def _one(job: tuple[str, int, tuple[str, ...]]) -> tuple[np.ndarray, tuple[int, int, int]]:
    purpose, k, classes = job
    draw = random.Random(derive("skyworld", purpose, k))
    background, pose = (int(draw.random() * len(of)) for of in (world.BACKGROUNDS, world.POSES))
    picture = render.render(
        classes[k % len(classes)],
        world.BACKGROUNDS[background],
        world.POSES[pose],
        seed=derive("skyworld", purpose, "nuisance", k),
        size=models.SIDE,
    )
    return np.asarray(picture), (k % len(classes), background, pose)


def _cached(work: Path, count: int, purpose: str) -> tuple[np.ndarray, np.ndarray]:
    path = work / f"renders-{purpose}-{count}.npz"
    if not path.exists():
        pixels, labels = renders(count, purpose=purpose)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, pixels=pixels, labels=labels)
        temporary.replace(path)
    held = np.load(path)
    return held["pixels"], held["labels"]


def _batch(pixels: np.ndarray, rows: Tensor) -> Tensor:
    """Rows of a uint8 array -> float (b, 3, SIDE, SIDE) in [-1, 1], channels last."""
    images = torch.from_numpy(pixels[rows.numpy()]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def vae(out: Path, work: Path) -> None:
    """The autoencoder: MSE x 4 + L1 x 0.3 with a fixed small noise on the latents."""
    pixels, _ = _cached(work, _RENDERS, "train")
    held, _ = _cached(work, 600, "check")
    noise = 0.05

    def loss_of(model: torch.nn.Module, generator: torch.Generator) -> Tensor:
        images = _batch(pixels, torch.randint(len(pixels), (24,), generator=generator))
        mean = model.encode(images).latent_dist.mean
        error = model.decode(mean + noise * torch.randn(mean.shape, generator=generator)).sample - images
        return 4 * error.square().mean() + 0.3 * error.abs().mean() + 1e-4 * mean.square().mean()

    @torch.no_grad()
    def check(model: torch.nn.Module) -> str:
        images = _batch(held, torch.arange(len(held)))
        error = model.decode(model.encode(images).latent_dist.mean).sample.clamp(-1, 1) - images
        return f"{10 * math.log10(4 / error.square().mean().item()):.2f} dB,"

    model = models.vae().to(memory_format=torch.channels_last)
    model = training.train("vae", model, loss_of, steps=7_000, lr=3e-3, work=work, check=check)
    with torch.no_grad():
        # The posterior that was trained on: the variance is a constant, whatever the image.
        half = model.config.latent_channels
        model.quant_conv.weight[half:] = 0
        model.quant_conv.bias[half:] = 2 * math.log(noise)
        latents = model.encode(_batch(held, torch.arange(len(held)))).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    model.to(memory_format=torch.contiguous_format).save_pretrained(out / "sd" / "vae")


STAGES: dict[str, Callable[[Path, Path], None]] = {"vae": vae}


def main() -> None:
    """Runs the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--work", type=Path, help="folder for renders and resumable state [OUT/work]")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=list(STAGES), help="stages to run")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    work = arguments.work or arguments.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    for stage in arguments.only:
        torch.manual_seed(derive("skyworld", "initial weights", stage))
        STAGES[stage](arguments.out, work)


if __name__ == "__main__":
    main()
