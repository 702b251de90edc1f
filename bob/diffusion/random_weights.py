"""Stable Diffusion 1.5 and 2.1-base with random weights: the architecture, memory and arithmetic of the real ones.

For rehearsals and measurements on a machine without the weights: such a model draws noise, at the cost of a trained
one. Configurations are those of the hub's files. The tokenizer is skyworld's, at CLIP's length.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURES", "modules", "write"]

_TOKENIZER = Path(__file__).parents[1] / "skyworld" / "weights" / "sd" / "tokenizer"
_LENGTH = 77  # tokens of a prompt

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "sd15": {
        "unet": {"cross_attention_dim": 768, "attention_head_dim": 8},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    },
    "sd21": {
        "unet": {
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
        "text": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
    },
}
"""Name of a checkpoint -> in what its `unet`, its `text` encoder and its `vae` differ from the following."""

_UNET: dict[str, Any] = {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280)}
_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
}
_TEXT: dict[str, Any] = {"vocab_size": 49_408, "max_position_embeddings": _LENGTH}


def modules(name: str) -> "dict[str, nn.Module]":
    """The networks of an architecture with diffusers' initial weights, on torch's default device; `meta` is one.

    Args:
        name: one of `ARCHITECTURES`.

    Returns:
        `unet`, `vae` and `text_encoder`, as `StableDiffusionPipeline` takes them.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shape, ids = ARCHITECTURES[name], _tokenizer()
    ends = {f"{end}_token_id": getattr(ids, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    return {
        "unet": UNet2DConditionModel(**{**_UNET, **shape["unet"]}),
        "vae": AutoencoderKL(**{**_VAE, **shape.get("vae", {})}),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**{**_TEXT, **ends, **shape["text"]})),
    }


def write(name: str, folder: Path, *, half: bool = True) -> None:
    """Writes a checkpoint with random weights as a folder in diffusers' format.

    Args:
        name: one of `ARCHITECTURES`.
        folder: the folder to make.
        half: whether the files hold float16, which takes half the space (2.1 GB for `sd15`), or float32.
    """
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = modules(name)
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
    )
    build: Any = StableDiffusionPipeline
    pipeline = build(
        **networks,
        tokenizer=_tokenizer(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if half:
        for network in networks.values():
            network.half()
    pipeline.save_pretrained(folder)


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(_TOKENIZER, model_max_length=_LENGTH)
