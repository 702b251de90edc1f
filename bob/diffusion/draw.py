"""Drawing requests with a Stable Diffusion pipeline: each image from its own generator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL import Image

from bob.types import Request

__all__ = ["initial_noise", "text2img"]


def text2img(pipeline: "StableDiffusionPipeline", requests: Sequence[Request]) -> "list[Image.Image | None]":
    """Draws one batch of text-to-image requests that agree in guidance and steps.

    Returns:
        One RGB picture a request, in order; None where the model produced a value that is not finite.
    """
    first = requests[0]
    assert all((r.kind, r.scheduler) == ("text2img", "default") for r in requests), "no other is drawn here"
    call: Any = pipeline  # of a type that depends on its arguments
    with torch.inference_mode():
        pixels = call(
            prompt=[request.prompt for request in requests],
            negative_prompt=[request.negative_prompt for request in requests],
            latents=initial_noise(pipeline, requests),
            guidance_scale=first.guidance,
            num_inference_steps=first.steps,
            output_type="pt",
        ).images
    finite = torch.isfinite(pixels).flatten(1).all(1).tolist()
    processor = pipeline.image_processor
    pictures = processor.numpy_to_pil(processor.pt_to_numpy(pixels.float().nan_to_num()))
    return [picture if good else None for picture, good in zip(pictures, finite, strict=True)]


def initial_noise(pipeline: "StableDiffusionPipeline", requests: Sequence[Request]) -> torch.Tensor:
    """Standard normal latents, (b, channels, h, w), each drawn on the CPU from its request's seed."""
    side = pipeline.unet.config.sample_size
    shape = (pipeline.unet.config.in_channels, side, side)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)) for request in requests]
    return torch.stack(noise).to(pipeline.device, pipeline.unet.dtype)
