"""LoRA on the attention of U-Net and text encoder, as DataDream and BOB use it (paper Table 4), or of the U-Net alone.

Alpha = rank, Gaussian A and zero B, no dropout; on the q, k, v and out projections of every attention. Saved in
diffusers' own format, which a stock `StableDiffusionPipeline.load_lora_weights` reads.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

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

    The weights stay the same tensors in the same layers, so that what was compiled for them stays valid. Cannot be
    undone, since un-fusing drifts by rounding: keep a clean copy of the weights instead.

    Raises:
        ValueError: if the adapter is not a safetensors file, or belongs to another network; no weight is changed.
    """
    weights = _weights(pipeline)
    for name, (down, up) in _branches(adapter).items():
        weight = weights.get(name)
        if weight is None or weight.shape != (len(up), down.shape[1]):
            raise ValueError(
                f"the adapter's {FILE} changes {name} by {len(up)} x {down.shape[1]} numbers, the checkpoint has"
                f" {'none' if weight is None else ' x '.join(map(str, weight.shape))}: draw with the checkpoint that it"
                " was trained on"
            )
    with torch.no_grad():
        for name, (down, up) in _branches(adapter).items():
            weights[name] += up.to(weights[name]) @ down.to(weights[name])  # alpha = rank: a scale of 1


def _weights(pipeline: "StableDiffusionPipeline") -> dict[str, Tensor]:
    """Weights of the linear layers that an adapter may change, by layer, named as in the adapter's file."""
    models = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {
        f"{prefix}.{name}": layer.weight
        for prefix, model in models.items()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
    }


def _branches(adapter: bytes) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> down (rank, inputs) and up (outputs, rank), on the CPU.

    Raises:
        ValueError: if the adapter is not a safetensors file, or not of the form that `serialize` writes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    remedy = "delete its folder below adapters, and the same command makes it again"
    try:
        tensors = load(adapter)
    except SafetensorError as error:
        raise ValueError(f"the adapter's {FILE} is damaged ({error}): {remedy}") from error
    branches: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        layer = layer.removesuffix(".lora").removesuffix(".lora_linear_layer")
        branches.setdefault(layer, {})[part] = tensor
    if wrong := [layer for layer, parts in branches.items() if parts.keys() != {"down", "up"}]:
        raise ValueError(f"the adapter's {FILE} is damaged: {wrong[0]} wants the tensors down and up: {remedy}")
    return {layer: (parts["down"], parts["up"]) for layer, parts in branches.items()}
