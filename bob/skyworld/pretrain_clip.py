"""Pre-training of the mini CLIP, on pictures of the base classes and prompts about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPModel, CLIPTextModel

from bob.backbones._clip_network import Prompted
from bob.core.prompts import class_prompt
from bob.datasets import _skyworld
from bob.skyworld import models, renders, training

__all__ = ["clip", "zero_shot"]

_HELD = 600
_BATCH = 64
_CONTEXT = 0.3
"""Weight of backgrounds and of poses in the loss; classes have weight 1."""


def clip(out: Path, work: Path) -> None:
    """Trains CLIP on each picture against the prompts of all classes, backgrounds and poses: cross-entropy of cosines.

    The world is small enough to compare a picture with all prompts at every step, where CLIP takes those of the batch.
    The image tower starts from the mini MAE, the text tower from the mini Stable Diffusion: from random weights, with
    captions against captions, the model knew backgrounds after 1,000 steps, but neither poses nor classes, whose
    prompts stayed one vector.

    Source: Radford et al. 2021, arXiv:2103.00020, for the model and its temperature.
    """
    pixels, labels = renders.cached(work, renders.TRAIN, "train")
    held_out, held_out_labels = renders.cached(work, _HELD, "check")
    tokenizer = models.clip_tokenizer()
    ids = torch.tensor(tokenizer([prompt for prompts in _PROMPTS for prompt in prompts], padding=True)["input_ids"])

    def loss_of(model: Any, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pixels), (_BATCH,), generator=generator)
        images, truth = renders.augmented(renders.as_batch(pixels, rows), torch.from_numpy(labels)[rows], generator)
        logits = model(pixel_values=images, input_ids=ids).logits_per_image
        parts = logits.split([len(prompts) for prompts in _PROMPTS], 1)
        losses = [cross_entropy(part, truth[:, k]) for k, part in enumerate(parts)]
        return losses[0] + _CONTEXT * (losses[1] + losses[2])

    def check(model: Any) -> str:
        return f"zero-shot {zero_shot(model, tokenizer, held_out, held_out_labels):.1%},"

    model: Any = models.clip(tokenizer)
    _start_from_mae(model, load_file(out / "mae" / "model.safetensors"))
    text_encoder: Any = CLIPTextModel.from_pretrained(out / "sd" / "text_encoder", use_safetensors=True)
    model.text_model.load_state_dict(text_encoder.float().state_dict())
    schedule = training.Schedule(steps=2_000, lr=1e-3, weight_decay=0.05)
    model = training.train("clip", model, loss_of, schedule, work=work, check=check)
    folder = out / "clip"
    model.half().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


_PROMPTS = (
    [class_prompt(_skyworld.DESCRIPTOR, name) for name in _skyworld.BASE],
    [f"a photo of a {_skyworld.DESCRIPTOR} in the {background} background." for background in _skyworld.BACKGROUNDS],
    [f"a photo of a {_skyworld.DESCRIPTOR} with the {pose} pose." for pose in _skyworld.POSES],
)
"""Prompts of the classes, backgrounds and poses, one for each label."""


@torch.inference_mode()
def zero_shot(
    model: CLIPModel, tokenizer: Any, pixels: Any, labels: Any, names: tuple[str, ...] = _skyworld.BASE
) -> float:
    """Returns the share of pictures nearest to the prompt of their class among `names`; chance is 1 / len(names)."""
    prompted = Prompted(model, tokenizer, [class_prompt(_skyworld.DESCRIPTOR, name) for name in names]).eval()
    parts = [prompted(renders.as_batch(pixels, rows)) for rows in torch.arange(len(pixels)).split(200)]
    return (torch.cat(parts).argmax(1).numpy() == labels[:, 0]).mean()


@torch.no_grad()
def _start_from_mae(model: Any, encoder: Mapping[str, Tensor]) -> None:
    """Fills the image tower with the weights of the mini MAE's encoder, as timm names them."""
    weights, tower = {name: value.float() for name, value in encoder.items()}, model.vision_model
    tower.embeddings.class_embedding.copy_(weights["cls_token"][0, 0])
    tower.embeddings.patch_embedding.weight.copy_(weights["patch_embed.proj.weight"])
    positions = weights["pos_embed"][0].clone()
    positions[1:] += weights["patch_embed.proj.bias"]  # CLIP's patches have none
    tower.embeddings.position_embedding.weight.copy_(positions)
    tower.pre_layrnorm.weight.fill_(0.5)  # MAE has no such norm: keeps the scale of the tokens
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    names |= {"attn.proj": "self_attn.out_proj"}
    for number, layer in enumerate(tower.encoder.layers):
        for kind in ("weight", "bias"):
            for theirs, ours in names.items():
                layer.get_parameter(f"{ours}.{kind}").copy_(weights[f"blocks.{number}.{theirs}.{kind}"])
            parts = weights[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)
            for ours, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                layer.get_parameter(f"self_attn.{ours}.{kind}").copy_(part)
