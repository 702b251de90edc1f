"""Pre-training of the mini Stable Diffusion's autoencoder, on whose latents the U-Net is trained."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bob.skyworld import models, renders, training

__all__ = ["NOISE", "vae"]

NOISE = 0.05
"""Fixed standard deviation of the posterior, the noise that the decoder is trained with."""


def vae(out: Path, work: Path) -> None:
    """Trains the autoencoder by MSE x 4 + L1 x 0.3, with a small fixed noise on the latents."""
    pixels, _ = renders.cached(work, renders.TRAIN, "train")
    held_out, _ = renders.cached(work, 600, "check")

    def loss_of(model: Any, generator: torch.Generator) -> Tensor:
        images = renders.as_batch(pixels, torch.randint(len(pixels), (24,), generator=generator))
        mean = model.encode(images).latent_dist.mean
        error = model.decode(mean + NOISE * torch.randn(mean.shape, generator=generator)).sample - images
        return 4 * error.square().mean() + 0.3 * error.abs().mean() + 1e-4 * mean.square().mean()

    @torch.no_grad()
    def check(model: Any) -> str:
        images = renders.as_batch(held_out, torch.arange(len(held_out)))
        error = model.decode(model.encode(images).latent_dist.mean).sample.clamp(-1, 1) - images
        return f"{10 * math.log10(4 / error.square().mean().item()):.2f} dB,"

    model: Any = models.vae()
    model.to(memory_format=torch.channels_last)
    schedule = training.Schedule(steps=7_000, lr=3e-3)
    model = training.train("vae", model, loss_of, schedule, work=work, check=check)
    with torch.no_grad():
        # Sets the posterior of the training: a constant variance for all images.
        half = model.config.latent_channels
        model.quant_conv.weight[half:] = 0
        model.quant_conv.bias[half:] = 2 * math.log(NOISE)
        latents = model.encode(renders.as_batch(held_out, torch.arange(len(held_out)))).latent_dist.mean
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    model.to(memory_format=torch.contiguous_format).save_pretrained(out / "sd" / "vae")
