"""The paper's models at full size on a pretended GPU without numbers: no weights, no memory."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline

from bob.diffusion import random_weights
from bob.skyworld import models

__all__ = ["on_gpu", "pipeline"]


def on_gpu(make: Callable[[], torch.nn.Module], dtype: torch.dtype = torch.float32) -> Any:
    """A model whose weights lie on the GPU."""
    with torch.device("meta"):
        model = make()
    return torch.nn.Module.to(model, "cuda", dtype)  # not diffusers' own, which warns


def pipeline(name: str, dtype: torch.dtype, device: str = "cuda") -> StableDiffusionPipeline:
    """SD 1.5 or SD 2.1-base as their hub's configuration files describe them; the words are skyworld's.

    Args:
        name: `sd15` or `sd21`.
        dtype: of all weights.
        device: `cuda` for a pretended GPU, or `meta`.
    """
    tokenizer = models.clip_tokenizer()
    tokenizer.model_max_length = 77
    with torch.device("meta"):
        networks = random_weights.modules(name)
        text: Any = networks["text_encoder"]
        # Learned words are numbered from the tokenizer's length, where their embeddings have to begin.
        text.set_input_embeddings(torch.nn.Embedding(len(tokenizer), text.config.hidden_size))
    build: Any = StableDiffusionPipeline
    made = build(
        **{part: torch.nn.Module.to(network, device, dtype) for part, network in networks.items()},
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made
