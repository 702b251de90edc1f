"""LoRA on the attention of U-Net and text encoder, as DataDream and BOB use it (paper Table 4), or of the U-Net alone.

Alpha = rank, Gaussian A and zero B, no dropout; on the q, k, v and out projections of every attention. Saved in
diffusers' own format, which a stock `StableDiffusionPipeline.load_lora_weights` reads.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

__all__ = ["FILE", "add", "fuse", "parameters", "serialize"]

FILE = "pytorch_lora_weights.safetensors"
"""File name that diffusers looks for."""

_UNET_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
_TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def add(unet: "UNet2DConditionModel | None", text_encoder: "CLIPTextModel | None" = None, *, rank: int) -> None:
    """Freezes the given models and adds trainable low-rank factors, which initially change nothing (B = 0)."""
    from peft import LoraConfig

    from bob.diffusion.low_rank import LowRankLinear

    for model, targets in ((unet, _UNET_TARGETS), (text_encoder, _TEXT_TARGETS)):
        if model is not None:
            model.requires_grad_(False)
            config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
            config._register_custom_module({nn.Linear: LowRankLinear})
            model.add_adapter(config)


def parameters(*models: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by a name that is unique across the models, in a fixed order."""
    return {
        f"{k}.{name}": parameter
        for k, model in enumerate(models)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def serialize(unet: "UNet2DConditionModel", text_encoder: "CLIPTextModel") -> bytes:
    """The adapter as the bytes of a safetensors file in diffusers' format, float32; empty if no model has one."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    models = {"unet_lora_layers": unet, "text_encoder_lora_layers": text_encoder}
    layers: dict[str, Any] = {
        name: convert_state_dict_to_diffusers(get_peft_model_state_dict(model))
        for name, model in models.items()
        if hasattr(model, "peft_config")
    }
    if not layers:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        StableDiffusionPipeline.save_lora_weights(folder, **layers)
        return Path(folder, FILE).read_bytes()


def fuse(pipeline: "StableDiffusionPipeline", adapter: bytes) -> None:
    """Adds an adapter to the pipeline's own weights, so that drawing costs no more than with the base model.

    Cannot be undone, since un-fusing drifts by rounding: keep a clean copy of the weights instead.

    Raises:
        ValueError: if the adapter is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        load(adapter)  # diffusers would name a temporary copy in its error
    except SafetensorError as error:
        raise ValueError(
            f"the adapter's {FILE} is damaged ({error}): delete its folder below adapters, and the same command makes"
            " it again"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, FILE).write_bytes(adapter)
        pipeline.load_lora_weights(folder, weight_name=FILE)
    pipeline.fuse_lora(components=["unet", "text_encoder"])
    pipeline.unload_lora_weights()
