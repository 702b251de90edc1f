"""Memory and arithmetic of Stable Diffusion's steps, fine-tunes and drawing, counted on the meta device."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from benchmarks.counting.live_bytes import LiveBytes, autocast, flops, peak, quietly, slope, trained
from bob.diffusion import lora, random_weights, training
from bob.diffusion.batches import Batch
from bob.diffusion.textual_inversion import ExtendedEmbedding

__all__ = ["ARCHITECTURES", "count_step", "finetune", "generate"]

ARCHITECTURES = ("sd15", "sd21", "skyworld")
STEPS = (("unet+text", 512), ("unet+words", 512), ("unet+words", 224), ("words", 512))
"""What is trained, and at which side in pixels."""
MINI_STEPS = (("unet+text", 32), ("unet+words", 32), ("words", 32))

_SHIPPED = Path(training.__file__).parents[1] / "skyworld" / "weights" / "sd"
_RANK = 16
_WORDS = 200  # one a class of CUB, the data set of Table 1 with most


def count_step(architecture: str, parts: str, side: int, precision: str) -> dict[str, Any]:
    """An entry of the table: bytes an image and fixed, without and with checkpointing; arithmetic of an image.

    Args:
        architecture: one of `ARCHITECTURES`.
        parts: what is trained: `unet+text`, `unet+words` or `words`.
        side: of the images, in pixels.
        precision: `float32` or `bfloat16`.
    """
    plain, checkpointed = (_tuned(architecture, parts, checkpointing=checkpointing) for checkpointing in (False, True))

    def peak_of(models: SimpleNamespace) -> Callable[[int], int]:
        def bytes_of(images: int) -> int:
            step = _step(models, images, side=side, precision=precision)
            return peak(step, models.unet, models.text_encoder)

        return bytes_of

    image, fixed = slope(peak_of(plain))
    checkpointed_image, checkpointed_fixed = slope(peak_of(checkpointed))
    return {
        "fixed": max(0, fixed, checkpointed_fixed),
        "image": image,
        "checkpointed": checkpointed_image,
        "flops": flops(_step(plain, 1, side=side, precision=precision)),
    }


def _tuned(architecture: str, parts: str, *, checkpointing: bool) -> SimpleNamespace:
    """The models as `training` prepares them, and their scheduler: what its loss asks of a pipeline."""
    unet, text_encoder, vae = _networks(architecture)
    with torch.device("meta"):
        lora.add(unet if "unet" in parts else None, text_encoder if "text" in parts else None, rank=_RANK)
    if "words" in parts:
        table = text_encoder.get_input_embeddings()
        rows = [table.weight[0].detach().clone() for _ in range(_WORDS)]
        text_encoder.set_input_embeddings(ExtendedEmbedding(table, rows))
    unet.to(memory_format=torch.channels_last).train()
    text_encoder.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
        text_encoder.activation_checkpointing_enable()
    return SimpleNamespace(unet=unet, text_encoder=text_encoder, scheduler=DDPMScheduler(), scale=_scale(vae))


def _step(models: Any, images: int, *, side: int, precision: str) -> Callable[[], None]:
    """Forward and backward pass of one micro-batch, by the loss of `bob.diffusion.training`."""
    unet = models.unet
    edge = side // models.scale
    with torch.device("meta"):
        latents = torch.empty(images, unet.config.in_channels, edge, edge)
        times = torch.zeros(images, dtype=torch.long)
        tokens = torch.zeros(images, models.text_encoder.config.max_position_embeddings, dtype=torch.long)
    latents, loss = latents.contiguous(memory_format=torch.channels_last), training.Loss(models)

    def step() -> None:
        with autocast(precision):
            noise, shown = torch.empty_like(latents), frozenset[int]()
            batch = Batch(
                latents=latents,
                noise=noise,
                times=times,
                tokens=tokens,
                prompts=tuple(range(images)),  # all differ, as BOB's may
                size=images,
                shown=shown,
            )
            loss(batch).backward()

    return step


def finetune(architecture: str) -> dict[str, Any]:
    """All entries of one architecture's fine-tunes."""
    unet, text_encoder, vae = _networks(architecture)
    steps: dict[str, Any] = {}
    for precision in ("float32", "bfloat16"):
        for parts, side in MINI_STEPS if architecture == "skyworld" else STEPS:
            counted = count_step(architecture, parts, side, precision)
            steps.setdefault(f"{parts} {precision}", {})[str(side)] = counted
            print(architecture, parts, side, precision, counted, flush=True)
    channels, edge, side = unet.config.in_channels, unet.config.sample_size, unet.config.sample_size * _scale(vae)
    picture, held = torch.empty(1, 3, side, side, device="meta"), LiveBytes(unet, text_encoder, vae).weights
    encode = peak(lambda: quietly(lambda: vae.encode(picture)), vae)
    with torch.device("meta"):
        lora.add(unet, text_encoder, rank=1)
    return {
        "weights": held,
        "encode": encode,
        "posterior": 2 * channels * edge * edge * 4,  # mean and deviation in float32
        "lora": {"unet": trained(unet), "text_encoder": trained(text_encoder)},
        "width": text_encoder.config.hidden_size,
        "steps": steps,
    }


def generate(architecture: str) -> dict[str, Any]:
    """Drawing in float16: the largest of a batch's phases, with the CLIP model of a filter beside it."""
    models = _networks(architecture)
    for model in models:
        model.half().eval()
    unet, text_encoder, vae = models
    unet.to(memory_format=torch.channels_last)
    channels, edge, side = unet.config.in_channels, unet.config.sample_size, unet.config.sample_size * _scale(vae)
    tokens = text_encoder.config.max_position_embeddings, text_encoder.config.hidden_size
    with torch.device("meta"):
        # Skyworld's CLIP has the weights of its text encoder and of a mini ViT: too few to matter.
        judge = LiveBytes() if architecture == "skyworld" else LiveBytes(CLIPModel(CLIPConfig()))

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", dtype=torch.float16)

    def evaluate(images: int) -> Tensor:
        return unet(empty(images, channels, edge, edge), empty(), empty(images, *tokens)).sample

    phases: dict[str, Callable[[int], Any]] = {
        "evaluate": lambda images: evaluate(2 * images),  # with and without the prompt
        "decode": lambda images: vae.decode(empty(images, channels, edge, edge)).sample,
        "encode": lambda images: vae.encode(empty(2 * images, 3, side, side)),  # Diff-II: two sources an image
    }
    counted = {name: slope(_peak_of(do, *models)) for name, do in phases.items()}
    return {
        "weights": LiveBytes(*models).weights,
        "fixed": judge.weights + max(fixed for _, fixed in counted.values()),
        "image": max(image for image, _ in counted.values()),
        "flops": flops(lambda: quietly(lambda: evaluate(1))),
        "phases": {name: image for name, (image, _) in counted.items()},
    }


def _peak_of(do: Callable[[int], Any], *models: nn.Module) -> Callable[[int], int]:
    return lambda images: peak(lambda: quietly(lambda: do(images)), *models)


def _networks(architecture: str) -> tuple[Any, Any, Any]:
    """U-Net, text encoder and VAE on the meta device, frozen."""
    with torch.device("meta"):
        if architecture == "skyworld":
            config = {
                part: json.loads((_SHIPPED / part / "config.json").read_text(encoding="utf-8"))
                for part in ("unet", "text_encoder", "vae")
            }
            networks: Any = {
                "unet": UNet2DConditionModel.from_config(config["unet"]),
                "text_encoder": CLIPTextModel(CLIPTextConfig(**config["text_encoder"])),
                "vae": AutoencoderKL.from_config(config["vae"]),
            }
        else:
            networks = random_weights.modules(architecture)
    return tuple(networks[part].requires_grad_(False) for part in ("unet", "text_encoder", "vae"))


def _scale(vae: Any) -> int:
    """Pixels of an image for one of its latents, along a side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)
