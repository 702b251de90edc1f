"""The paper's models at full size on a pretended GPU without numbers: no weights, no memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from transformers import (
    AutoProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Qwen2_5_VLForConditionalGeneration,
)

from bob import backbones
from bob.backbones import _timm
from bob.captioners import _qwen_vl, _random_weights
from bob.diffusion import random_weights, timesteps
from bob.skyworld import models

__all__ = ["WIDTH", "Seen", "backbones_without_weights", "captioner", "clip_without_weights", "on_gpu", "pipeline"]

WIDTH = {"sd15": 768, "sd21": 1024}
"""Checkpoint -> width of a prompt's tokens."""


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


class Seen:
    """What a U-Net is given, and what it returns."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.images = 0
        """Of all calls together."""
        self.shapes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        """Of an image's latents and of its text."""
        self.dtypes: set[torch.dtype] = set()
        unet.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, unet: Any, args: tuple[Any, ...], named: dict[str, Any], returned: Any) -> None:
        given = timesteps.by_name(args, named)
        latents, text = given["sample"], given["encoder_hidden_states"]
        noise = returned[0] if isinstance(returned, tuple) else returned.sample
        assert latents.is_cuda
        assert text.is_cuda
        assert noise.is_cuda
        assert noise.shape == latents.shape
        assert len(latents) == len(text)
        self.images += len(text)
        self.shapes.add((tuple(latents.shape[1:]), tuple(text.shape[1:])))
        self.dtypes |= {latents.dtype, text.dtype, noise.dtype}


def backbones_without_weights(patch: pytest.MonkeyPatch) -> None:
    """Makes backbones without numbers, which load none."""
    clip_without_weights(patch, patch_size=16)
    patch.setattr(_timm, "find", lambda *_, **__: None)
    patch.setattr(_timm, "fresh_head", lambda model, *_, **__: model)
    for name in ("resnet50", "clip_vit_b16", "mae_vit_b16"):
        kind = type(backbones.load(name))
        patch.setattr(kind, "build", _on_meta(kind.build))


def clip_without_weights(patch: pytest.MonkeyPatch, *, patch_size: int) -> None:
    """Makes OpenAI's CLIP ViT-B, of patches of so many pixels, without numbers; the words are skyworld's."""
    tokenizer = models.clip_tokenizer()
    tokenizer.model_max_length = 77
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config=ends, vision_config={"patch_size": patch_size})
    patch.setattr(CLIPModel, "from_pretrained", lambda *_, **__: _on_meta(CLIPModel)(config))
    patch.setattr(CLIPTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    patch.setattr(CLIPImageProcessor, "from_pretrained", lambda *_, **__: CLIPImageProcessor())


def captioner(patch: pytest.MonkeyPatch, folder: Path) -> _qwen_vl.QwenVL:
    """Qwen2.5-VL-7B as `qwen_vl` loads it, without numbers; `folder` is where its files would be."""
    config, processor = _random_weights.parts("7b")

    def network(*_: Any, dtype: torch.dtype, **__: Any) -> Any:
        made = _on_meta(Qwen2_5_VLForConditionalGeneration)(config).to(dtype)
        made.generation_config = _random_weights.generation(processor)
        return made

    patch.setattr(Qwen2_5_VLForConditionalGeneration, "from_pretrained", network)
    patch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    return _qwen_vl.load(folder, name="qwen_vl:7b", device="cuda")


def _on_meta(build: Callable[..., Any]) -> Callable[..., Any]:
    def built(*args: Any, **named: Any) -> Any:
        with torch.device("meta"):
            return build(*args, **named)

    return built
