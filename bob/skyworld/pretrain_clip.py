"""Pre-trains the mini CLIP: pictures of the base world beside what people would write under them."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import CLIPModel

from bob.backbones._clip import Prompted
from bob.prompts import class_prompt
from bob.skyworld import captions, models, renders, training, world

__all__ = ["clip", "zero_shot"]

_HELD = 600
_BATCH = 64
_NAMES_ALONE = 0.6
"""Share of the class prompt: what zero-shot classification reads, and where the fine grain is learnt."""


def clip(out: Path, work: Path) -> None:
    """Contrastive, in float32: each picture against the captions of its batch, each caption against its pictures.

    The image tower begins as the mini MAE, which has seen shapes: from random weights it read backgrounds after 1,000
    steps, and of poses and classes nothing. A caption that is true of several pictures belongs to all of them: with 60
    classes and 72 contexts a batch repeats itself, where the web does not.

    Source: Radford et al. 2021, arXiv:2103.00020; several positives as in Yang et al. 2022, arXiv:2204.03610.
    """
    pixels, labels = renders.cached(work, renders.TRAIN, "train")
    held, held_labels = renders.cached(work, _HELD, "check")
    tokenizer = models.clip_tokenizer()

    def loss_of(model: Any, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pixels), (_BATCH,), generator=generator)
        images, truth = renders.augmented(renders.as_batch(pixels, rows), torch.from_numpy(labels)[rows], generator)
        prompts, facts = _captions(truth, random.Random(int(torch.randint(2**62, (), generator=generator))))
        ids = torch.tensor(tokenizer(prompts, padding=True)["input_ids"])
        logits = model(pixel_values=images, input_ids=ids).logits_per_image
        matches = ((facts[None] == truth[:, None]) | (facts[None] < 0)).all(-1).float()
        return (_cross_entropy(logits, matches) + _cross_entropy(logits.T, matches.T)) / 2

    def check(model: Any) -> str:
        return f"zero-shot {zero_shot(model, tokenizer, held, held_labels):.1%},"

    model: Any = models.clip(tokenizer)
    _see(model, load_file(out / "mae" / "model.safetensors"))
    model = training.train("clip", model, loss_of, steps=3_000, lr=1.5e-3, weight_decay=0.05, work=work, check=check)
    folder = out / "clip"
    model.half().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


@torch.inference_mode()
def zero_shot(model: CLIPModel, tokenizer: Any, pixels: Any, labels: Any, names: tuple[str, ...] = world.BASE) -> float:
    """Share of pictures whose class is the one of `names` with the nearest prompt; chance is 1 / len(names)."""
    prompted = Prompted(model, tokenizer, [class_prompt(world.DESCRIPTOR, name) for name in names]).eval()
    parts = [prompted(renders.as_batch(pixels, rows)) for rows in torch.arange(len(pixels)).split(200)]
    return (torch.cat(parts).argmax(1).numpy() == labels[:, 0]).mean()


@torch.no_grad()
def _see(model: Any, encoder: Mapping[str, Tensor]) -> None:
    """Fills the image tower with the weights of the mini MAE's encoder, as timm names them."""
    held, tower = {name: value.float() for name, value in encoder.items()}, model.vision_model
    tower.embeddings.class_embedding.copy_(held["cls_token"][0, 0])
    tower.embeddings.patch_embedding.weight.copy_(held["patch_embed.proj.weight"])
    positions = held["pos_embed"][0].clone()
    positions[1:] += held["patch_embed.proj.bias"]  # CLIP's patches have none
    tower.embeddings.position_embedding.weight.copy_(positions)
    tower.pre_layrnorm.weight.fill_(0.5)  # MAE has no such norm: tokens stay as large as its blocks know them
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    names |= {"attn.proj": "self_attn.out_proj"}
    for number, layer in enumerate(tower.encoder.layers):
        for kind in ("weight", "bias"):
            for theirs, ours in names.items():
                layer.get_parameter(f"{ours}.{kind}").copy_(held[f"blocks.{number}.{theirs}.{kind}"])
            parts = held[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)
            for ours, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                layer.get_parameter(f"self_attn.{ours}.{kind}").copy_(part)


def _captions(truth: Tensor, draw: random.Random) -> tuple[list[str], Tensor]:
    """A caption for each row of (class, background, pose), and what it says of them: (b, 3), -1 for nothing."""
    templates, shares = zip(*captions.TEMPLATES, strict=True)
    prompts, facts = [], []
    for class_id, background, pose in truth.tolist():
        alone = draw.random() < _NAMES_ALONE
        template = "a {d} photo of a {c}" if alone else draw.choices(templates, shares)[0]
        words = world.BASE[class_id], world.BACKGROUNDS[background], world.POSES[pose]
        prompts.append(captions.caption(template, *words))
        said = ("{c}", class_id), ("{b}", background), ("{p}", pose)
        facts.append([value if mark in template else -1 for mark, value in said])
    return prompts, torch.tensor(facts)


def _cross_entropy(logits: Tensor, matches: Tensor) -> Tensor:
    targets = matches / matches.sum(1, keepdim=True)
    return -(targets * log_softmax(logits, 1)).sum(1).mean()
