"""Sampling of one batch of requests with a Stable Diffusion pipeline, each image from its own random generator.

Diffusers' own pipelines denoise; this module prepares their initial latents: noise, real images or inversions of them.
A request names the sampler, one of `SCHEDULERS`; its method sets it (`Method.scheduler` in `bob/methods/__init__.py`),
and its steps are `DrawSettings.steps`. `default` is the checkpoint's own, PNDM for SD 1.5, SD 2.1 and skyworld.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

from bob.core.timing import Stopwatch
from bob.core.types import Request
from bob.diffusion import circle

__all__ = ["SCHEDULERS", "Sources", "draw", "initial_noise", "latents"]

SCHEDULERS = {
    "default": lambda config: None,
    "dpm": DPMSolverMultistepScheduler.from_config,
    "ddim": lambda config: DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False),
}
"""`Request.scheduler` -> function from the configuration of the checkpoint's own scheduler to another, or to None."""

_DECODED = 8
"""Images that a GPU decodes at once. One at 512 px takes 2.5 TFLOP, so more would not be faster, and 0.4 GB in float16,
three times what it takes in the U-Net. On a CPU the whole batch is decoded at once."""


class Sources:
    """Real images that requests start from, resized to the model's square, and their DDIM inversions; both cached.

    Valid for one pipeline with one adapter.
    """

    def __init__(self, pipeline: "StableDiffusionPipeline", read: Callable[[str], Image.Image] | None = None) -> None:
        self._pipeline = pipeline
        self.read = read
        """Image id -> image; None if no request starts from one."""
        self._resized: dict[str, tuple[Image.Image, tuple[int, int]]] = {}
        self._inverted: dict[tuple[str, str, int], Tensor] = {}

    def square(self, image_id: str) -> Image.Image:
        """The RGB image, resized to the model's square regardless of its aspect ratio, as in the baselines' scripts."""
        return self._picture(image_id)[0]

    def size(self, image_id: str) -> tuple[int, int]:
        """Width and height with the source's aspect ratio, the shorter side being the model's."""
        return self._picture(image_id)[1]

    def inverted(self, pairs: Sequence[tuple[str, str]], *, steps: int) -> list[Tensor]:
        """DDIM inversions, float32 (c, h, w) on the CPU, of pairs (image_id, prompt); new ones made in one batch."""
        keys = [(*pair, steps) for pair in pairs]
        if missing := [key for key in dict.fromkeys(keys) if key not in self._inverted]:
            pictures, prompts = [self.square(key[0]) for key in missing], [key[1] for key in missing]
            inversions = circle.invert(self._pipeline, pictures, prompts, steps=steps)
            self._inverted.update(zip(missing, inversions.float().cpu(), strict=True))
        return [self._inverted[key] for key in keys]

    def _picture(self, image_id: str) -> tuple[Image.Image, tuple[int, int]]:
        if image_id not in self._resized:
            side = self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor
            assert self.read is not None, "a request that starts from an image needs a function that opens it"
            whole = self.read(image_id).convert("RGB")
            scale = side / min(whole.size)
            width, height = (round(n * scale) for n in whole.size)
            self._resized[image_id] = whole.resize((side, side), Image.Resampling.LANCZOS), (width, height)
        return self._resized[image_id]


def draw(
    pipeline: "StableDiffusionPipeline",
    requests: Sequence[Request],
    sources: Sources,
    *,
    times: Stopwatch | None = None,
) -> "list[Image.Image | None]":
    """Draws one batch of requests that agree in all but prompts, sources, seeds and labels.

    Args:
        pipeline: the checkpoint with its adapter.
        requests: the batch.
        sources: the real images that requests start from.
        times: gets the laps `denoise`, including the inversion of sources, and `decode`.

    Returns:
        One RGB image a request, in order; None if the model produced a value that is not finite. An image that starts
        from a real one (img2img) has that one's aspect ratio.
    """
    lap = times or Stopwatch(str(pipeline.device))
    with torch.inference_mode(), lap("denoise"):
        drawn = latents(pipeline, requests, sources)
    with torch.inference_mode(), lap("decode"):
        return _decoded(pipeline, requests, sources, drawn)


def _decoded(pipeline: Any, requests: Sequence[Request], sources: Sources, drawn: Tensor) -> "list[Image.Image | None]":
    """Latents -> RGB images; None for one that is not finite."""
    slices = drawn.split(_DECODED if drawn.is_cuda else len(drawn))
    pixels, finite = zip(*(_pixels(pipeline, part) for part in slices), strict=True)
    good = torch.cat(finite).tolist()
    pictures = [Image.fromarray(picture) for picture in torch.cat(pixels).cpu().numpy()]
    if requests[0].kind == "img2img":
        sizes = [sources.size(request.source_ids[0]) for request in requests]
        pictures = [picture.resize(size) for picture, size in zip(pictures, sizes, strict=True)]
    return [picture if whole else None for picture, whole in zip(pictures, good, strict=True)]


def _pixels(pipeline: Any, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Latents -> uint8 (b, h, w, 3), and whether all that was decoded is finite, (b,); both on the device."""
    decoded = pipeline.vae.decode(drawn / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    finite = torch.isfinite(decoded).flatten(1).all(1)  # before the clamp, which makes infinities 0 and 1
    shown = pipeline.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True] * len(drawn))
    # As diffusers' numpy_to_pil rounds, but where the pixels are, so that a quarter of the bytes leaves the device.
    rounded = (shown.permute(0, 2, 3, 1).float().nan_to_num() * 255).round().to(torch.uint8)
    return rounded.contiguous(), finite


@torch.inference_mode()
def latents(pipeline: "StableDiffusionPipeline", requests: Sequence[Request], sources: Sources) -> Tensor:
    """Latents of a batch before decoding: (b, channels, h, w), in the U-Net's scale.

    Raises:
        ValueError: if the strength of img2img leaves no step to run.
    """
    first = requests[0]
    common: dict[str, Any] = {
        "guidance_scale": first.guidance,
        "num_inference_steps": first.steps,
        "output_type": "latent",
    }
    with _scheduler(pipeline, first.scheduler):
        return _KINDS[first.kind](pipeline, requests, sources, common)


def _text2img(pipeline: Any, requests: Sequence[Request], sources: Sources, common: dict[str, Any]) -> Tensor:
    return pipeline(**_prompts(requests), latents=initial_noise(pipeline, requests), **common).images


def _img2img(pipeline: Any, requests: Sequence[Request], sources: Sources, common: dict[str, Any]) -> Tensor:
    strength, steps = requests[0].strength, requests[0].steps
    redraw: Any = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    redraw.set_progress_bar_config(disable=True)
    redraw.scheduler.set_timesteps(steps)
    if not len(redraw.get_timesteps(steps, strength, pipeline.device)[0]):
        raise ValueError(f"strength {strength} of {steps} steps leaves none to draw: raise one of them")
    # Each generator gives the sample of its source's posterior, then its noise.
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    pictures = [sources.square(request.source_ids[0]) for request in requests]
    return redraw(**_prompts(requests), image=pictures, strength=strength, generator=generators, **common).images


def _circle(pipeline: Any, requests: Sequence[Request], sources: Sources, common: dict[str, Any]) -> Tensor:
    bare = [request.prompt.removesuffix(request.background).rstrip() for request in requests]
    ends = [(request.source_ids[0], request.source_ids[-1]) for request in requests]
    pairs = [(source, prompt) for both, prompt in zip(ends, bare, strict=True) for source in both]
    inversions = sources.inverted(pairs, steps=circle.INVERSION * requests[0].steps)
    points = [
        circle.point(one, other if request.source_ids[1:] else None, seed=request.seed)
        for request, one, other in zip(requests, inversions[::2], inversions[1::2], strict=True)
    ]
    start = torch.stack(points).to(pipeline.device, pipeline.unet.dtype)
    return circle.denoise(pipeline, start, requests, bare=bare, common=common)


_KINDS = {"text2img": _text2img, "img2img": _img2img, "circle": _circle}


def _prompts(requests: Sequence[Request]) -> dict[str, list[str]]:
    return {
        "prompt": [request.prompt for request in requests],
        "negative_prompt": [request.negative_prompt for request in requests],
    }


@contextlib.contextmanager
def _scheduler(pipeline: Any, name: str) -> Iterator[None]:
    """Gives the pipeline another scheduler inside the block, one that keeps its timesteps on the CPU.

    A scheduler looks up its tables by timestep, several times a step, and on a GPU each time waits for it.
    """
    own = pipeline.scheduler
    pipeline.scheduler = SCHEDULERS[name](own.config) or type(own).from_config(own.config)
    set_timesteps = pipeline.scheduler.set_timesteps
    pipeline.scheduler.set_timesteps = lambda steps, device=None: set_timesteps(steps)
    try:
        yield
    finally:
        pipeline.scheduler = own


def initial_noise(pipeline: "StableDiffusionPipeline", requests: Sequence[Request]) -> Tensor:
    """Standard normal latents, (b, channels, h, w), each drawn on the CPU from its request's seed."""
    side = pipeline.unet.config.sample_size
    shape = (pipeline.unet.config.in_channels, side, side)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)) for request in requests]
    return torch.stack(noise).to(pipeline.device, pipeline.unet.dtype)
