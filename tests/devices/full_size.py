"""The paper's models at full size on a pretended GPU without numbers: no weights, no memory."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from bob.skyworld import models

__all__ = ["on_gpu", "pipeline"]


def on_gpu(make: Callable[[], torch.nn.Module], dtype: torch.dtype = torch.float32) -> Any:
    """A model whose weights lie on the GPU."""
    with torch.device("meta"):
        model = make()
    return torch.nn.Module.to(model, "cuda", dtype)  # not diffusers' own, which warns


def pipeline(name: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """SD 1.5 or SD 2.1-base as their hub's configuration files describe them; the words are skyworld's.

    Args:
        name: `sd15` or `sd21`.
        dtype: of all weights.
    """
    wide = name == "sd21"
    tokenizer = models.clip_tokenizer()
    tokenizer.model_max_length = 77
    unet: dict[str, Any] = {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280)}
    unet |= {"cross_attention_dim": 1024 if wide else 768, "attention_head_dim": (5, 10, 20, 20) if wide else 8}
    unet["use_linear_projection"] = wide
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        hidden_size=1024 if wide else 768,
        intermediate_size=4096 if wide else 3072,
        num_hidden_layers=23 if wide else 12,
        num_attention_heads=16 if wide else 12,
        hidden_act="gelu" if wide else "quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
    }
    build: Any = StableDiffusionPipeline
    made = build(
        vae=on_gpu(lambda: AutoencoderKL(**blocks, layers_per_block=2, latent_channels=4, sample_size=512), dtype),
        text_encoder=on_gpu(lambda: CLIPTextModel(text), dtype),
        tokenizer=tokenizer,
        unet=on_gpu(lambda: UNet2DConditionModel(**unet), dtype),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made
