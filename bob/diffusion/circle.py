"""Sampling of Diff-II: DDIM inversion, interpolation on a circle through two inversions, denoising under two prompts.

Wang & Chen, CVPR 2025 (arXiv:2408.16266). Latents are float32 here: an inner product of 16,384 numbers loses its digits
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

__all__ = ["INVERSION", "angle", "denoise", "interpolate", "invert", "point", "random_turn", "steps_before_switch"]

INVERSION = 8
"""Inversion steps for each sampling step: 200 for 25, as in the authors' script."""

_PARALLEL = 1e-3
"""Radians; latents at a smaller angle count as equal, as of an image that occurs twice."""


@torch.inference_mode()
def invert(
    pipeline: "StableDiffusionPipeline", pictures: Sequence[Image.Image], prompts: Sequence[str], *, steps: int
) -> Tensor:
    """DDIM inversion: latents from which DDIM at guidance 1 approximately reproduces the images.

    Args:
        pipeline: the checkpoint; the mean of its VAE's posterior is inverted, not a sample.
        pictures: square images of the model's size.
        prompts: one an image.
        steps: number of inversion steps.

    Returns:
        (b, channels, h, w) in the U-Net's dtype.

    Source: Song et al. 2021, arXiv:2010.02502, sec. 4.3; diffusers' DDIMInverseScheduler.
    """
    own: Any = pipeline.scheduler
    inverse: Any = DDIMInverseScheduler.from_config(own.config, clip_sample=False, set_alpha_to_one=False)
    inverse.set_timesteps(steps)  # on the CPU, where the scheduler looks them up without waiting for the GPU
    pixels = pipeline.image_processor.preprocess(list(pictures)).to(pipeline.device, pipeline.vae.dtype)
    latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    text, _ = pipeline.encode_prompt(list(prompts), pipeline.device, 1, False)
    for time in inverse.timesteps:
        noise = pipeline.unet(inverse.scale_model_input(latents, time), time, encoder_hidden_states=text).sample
        latents = inverse.step(noise, time, latents).prev_sample
    return latents


def angle(one: Tensor, other: Tensor) -> Tensor:
    """Angle between two latents as vectors: radians in [0, pi], float64."""
    one, other = one.double().flatten(), other.double().flatten()
    return torch.arccos((one @ other / (one.norm() * other.norm())).clamp(-1, 1))


def interpolate(one: Tensor, other: Tensor, alpha: float) -> Tensor:
    """Circle interpolation: the point at `alpha` on the circle from `one` away from `other` and round to it.

        sin((1 + alpha) t) / sin(t) * one - sin(alpha t) / sin(t) * other,   t the angle between them

    Args:
        one: float32, any shape; the point at alpha = 0.
        other: the same shape; the point at alpha = 2 pi / t - 1. If both norms are equal, so are those of all points.
        alpha: in [0, 2 pi / t].

    Source: arXiv:2408.16266, circle interpolation.
    """
    between = angle(one, other)
    first, second = torch.sin((1 + alpha) * between), torch.sin(alpha * between)
    return ((first * one.double() - second * other.double()) / torch.sin(between)).float()


def random_turn(one: Tensor, phase: float, generator: torch.Generator) -> Tensor:
    """Rotation of a latent by `phase` towards a random direction u that is orthogonal to it.

        cos(phase) * one + sin(phase) * |one| * u

    Args:
        one: float32, any shape; the result has its norm.
        phase: in radians.
        generator: on the CPU.
    """
    noise, latent = torch.randn(one.shape, generator=generator).double(), one.double()
    noise -= (noise * latent).sum() / latent.square().sum() * latent
    return (math.cos(phase) * latent + math.sin(phase) * latent.norm() * noise / noise.norm()).float()


def point(one: Tensor, other: Tensor | None, *, seed: int) -> Tensor:
    """A random point, its angle uniform over the circle; `random_turn` if the second latent is missing or equal."""
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * float(torch.rand((), generator=generator, dtype=torch.float64))
    if other is None or (between := float(angle(one, other))) < _PARALLEL or between > math.pi - _PARALLEL:
        return random_turn(one, phase, generator)
    return interpolate(one, other, phase / between)


def denoise(
    pipeline: "StableDiffusionPipeline",
    start: Tensor,
    requests: Sequence[Request],
    *,
    bare: Sequence[str],
    common: dict[str, Any],
) -> Tensor:
    """Denoises `start`: under the requests' prompts until `switch_at` of the schedule, then under the prompts `bare`.

    Args:
        pipeline: the checkpoint, with the scheduler to use.
        start: initial latents (b, channels, h, w).
        requests: the batch; equal in guidance, steps and `switch_at`.
        bare: one prompt a request.
        common: further arguments of the pipeline.

    Returns:
        Latents (b, channels, h, w).
    """
    first = requests[0]
    guided = first.guidance > 1
    negative = [request.negative_prompt for request in requests]

    def encoded(prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        return pipeline.encode_prompt(list(prompts), pipeline.device, 1, guided, negative)

    before, negatives = encoded([request.prompt for request in requests])
    after, _ = encoded(bare)
    last = steps_before_switch(pipeline.scheduler, first.steps, first.switch_at)

    def change(_: Any, step: int, time: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        if step + 1 == last:
            inputs["prompt_embeds"] = after if negatives is None else torch.cat([negatives, after])
        return inputs

    call: Any = pipeline  # its return type depends on its arguments
    return call(
        prompt_embeds=before if last else after,
        negative_prompt_embeds=negatives,
        latents=start,
        callback_on_step_end=change,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
        **common,
    ).images


def steps_before_switch(scheduler: Any, steps: int, switch_at: float) -> int:
    """Number of steps before the switch of prompts: those at timesteps of at least (1 - switch_at) x 1000."""
    scheduler.set_timesteps(steps)
    least = scheduler.config.num_train_timesteps * (1 - switch_at)
    return sum(time >= least for time in scheduler.timesteps.tolist())
