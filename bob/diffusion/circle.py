"""Diff-II's drawing: DDIM inversion, a point on the circle through two inversions, denoising under two prompts.

Wang & Chen, CVPR 2025 (arXiv:2408.16266). All geometry in float32: an inner product of 16,384 numbers loses its digits
in the float16 of the authors' script.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMInverseScheduler
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

from bob.core.types import Request

__all__ = ["INVERSION", "angle", "denoise", "interpolate", "invert", "point", "stages", "turned"]

INVERSION = 8
"""Steps of the inversion for each step of the drawing: 200 for 25, as the authors have it."""

_PARALLEL = 1e-3
"""Radians below which two latents are one, a picture that is there twice."""


@torch.inference_mode()
def invert(
    pipeline: "StableDiffusionPipeline", pictures: Sequence[Image.Image], prompts: Sequence[str], *, steps: int
) -> Tensor:
    """Latents from which DDIM at guidance 1 draws the pictures again, nearly.

    Args:
        pipeline: its VAE's posterior mean is inverted, not a sample.
        pictures: squares of the model's size.
        prompts: of each picture.
        steps: of the inversion.

    Returns:
        (b, channels, h, w) in the U-Net's type.

    Source: Song et al. 2021, arXiv:2010.02502, sec. 4.3; diffusers' DDIMInverseScheduler.
    """
    own: Any = pipeline.scheduler
    inverse: Any = DDIMInverseScheduler.from_config(own.config, clip_sample=False, set_alpha_to_one=False)
    inverse.set_timesteps(steps, device=pipeline.device)
    pixels = pipeline.image_processor.preprocess(list(pictures)).to(pipeline.device, pipeline.vae.dtype)
    held = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    text, _ = pipeline.encode_prompt(list(prompts), pipeline.device, 1, False)
    for time in inverse.timesteps:
        noise = pipeline.unet(inverse.scale_model_input(held, time), time, encoder_hidden_states=text).sample
        held = inverse.step(noise, time, held).prev_sample
    return held


def angle(one: Tensor, other: Tensor) -> Tensor:
    """Between two latents as vectors, in radians in [0, pi], float64."""
    one, other = one.double().flatten(), other.double().flatten()
    return torch.arccos((one @ other / (one.norm() * other.norm())).clamp(-1, 1))


def interpolate(one: Tensor, other: Tensor, alpha: float) -> Tensor:
    """The point at `alpha` of the circle through both, which runs from `one` away from `other`, and round to it.

        sin((1 + alpha) t) / sin(t) * one - sin(alpha t) / sin(t) * other,   t the angle between them

    Args:
        one: float32, any shape; the point at alpha = 0.
        other: the same; the point at alpha = 2 pi / t - 1. Of equal norm all points have it.
        alpha: in [0, 2 pi / t].

    Source: arXiv:2408.16266, circle interpolation.
    """
    between = angle(one, other)
    first, second = torch.sin((1 + alpha) * between), torch.sin(alpha * between)
    return ((first * one.double() - second * other.double()) / torch.sin(between)).float()


def turned(one: Tensor, phase: float, generator: torch.Generator) -> Tensor:
    """A point on a circle through a single latent, towards a random direction at right angles to it.

        cos(phase) * one + sin(phase) * |one| * u

    Args:
        one: float32, any shape; the result has its norm.
        phase: in radians.
        generator: on the CPU.
    """
    noise, along = torch.randn(one.shape, generator=generator).double(), one.double()
    noise -= (noise * along).sum() / along.square().sum() * along
    return (math.cos(phase) * along + math.sin(phase) * along.norm() * noise / noise.norm()).float()


def point(one: Tensor, other: Tensor | None, *, seed: int) -> Tensor:
    """A point whose angle is uniform over the whole circle; without a second latent, or with the same, `turned`."""
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * float(torch.rand((), generator=generator, dtype=torch.float64))
    if other is None or (between := float(angle(one, other))) < _PARALLEL or between > math.pi - _PARALLEL:
        return turned(one, phase, generator)
    return interpolate(one, other, phase / between)


def denoise(
    pipeline: "StableDiffusionPipeline",
    start: Tensor,
    requests: Sequence[Request],
    *,
    bare: Sequence[str],
    common: dict[str, Any],
) -> Tensor:
    """Draws from `start`, at first under the requests' prompts, after `switch_at` of the schedule under `bare`.

    Args:
        pipeline: with the scheduler that is to be used.
        start: (b, channels, h, w).
        requests: agree in guidance, steps and `switch_at`.
        bare: a prompt for each.
        common: what the pipeline is called with beside.
    """
    first = requests[0]
    guided = first.guidance > 1
    negative = [request.negative_prompt for request in requests]

    def encoded(prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        return pipeline.encode_prompt(list(prompts), pipeline.device, 1, guided, negative)

    whole, unwanted = encoded([request.prompt for request in requests])
    after, _ = encoded(bare)
    last = stages(pipeline.scheduler, first.steps, first.switch_at)

    def change(_: Any, step: int, time: Any, held: dict[str, Any]) -> dict[str, Any]:
        if step + 1 == last:
            held["prompt_embeds"] = after if unwanted is None else torch.cat([unwanted, after])
        return held

    call: Any = pipeline  # of a type that depends on its arguments
    return call(
        prompt_embeds=whole if last else after,
        negative_prompt_embeds=unwanted,
        latents=start,
        callback_on_step_end=change,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
        **common,
    ).images


def stages(scheduler: Any, steps: int, switch_at: float) -> int:
    """How many steps come before the switch: those at timesteps of at least (1 - switch_at) x 1000."""
    scheduler.set_timesteps(steps)
    least = scheduler.config.num_train_timesteps * (1 - switch_at)
    return sum(time >= least for time in scheduler.timesteps.tolist())
