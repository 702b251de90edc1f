"""Memory and arithmetic of classifiers' training steps and of Qwen2.5-VL's answers, counted on the meta device."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, Qwen2_5_VLForConditionalGeneration

from benchmarks.counting.live_bytes import LiveBytes, autocast, flops, peak, quietly, slope, trained
from bob import backbones
from bob.backbones import _clip_network, _timm
from bob.captioners import _random_weights as qwen
from bob.classifier import loss

__all__ = ["BACKBONES", "CAPTIONERS", "caption", "classify", "no_weights"]

BACKBONES = ("resnet50", "mae_vit_b16", "clip_vit_b16", "resnet_mini", "mae_mini", "clip_mini")
CAPTIONERS = tuple(qwen.ARCHITECTURES)
CLASSES = (100, 200)
"""Numbers of classes whose difference gives the bytes of one."""
PROMPT = 20
"""Tokens of the longest class prompt, assumed: CLIP's own tokenizer is not part of this package."""

_BATCH = 64  # Table 4
_QUESTIONS = 2
"""Questions about a picture, each a sequence of its own with the picture in front."""
_PATCHES, _TOKENS = 36, 420
"""Of a picture of 512 x 512 pixels: side in patches; 324 visual tokens, a question and an answer."""


def classify(name: str) -> dict[str, Any]:
    """All entries of one backbone.

    Weights and gradients grow with the classes in a head, activations and passes in CLIP's prompts.
    """
    few, many = CLASSES
    networks = {classes: _classifier(name, classes) for classes in CLASSES}
    parameters = {classes: trained(model) for classes, (_, model) in networks.items()}
    each = (parameters[many] - parameters[few]) // (many - few)
    steps = {}
    for precision in ("float32", "bfloat16"):
        peaks = {classes: _peak_of(*networks[classes], classes, precision) for classes in CLASSES}
        image, fixed = slope(peaks[few], few=_BATCH // 2, many=_BATCH)
        of_class = max(0, (peaks[many](_BATCH) - peaks[few](_BATCH)) // (many - few))
        work = [flops(_step(*networks[classes], _BATCH, classes, precision)) / _BATCH for classes in CLASSES]
        steps[precision] = {
            "fixed": max(0, fixed - few * of_class),
            "image": image,
            "class": of_class,
            "flops": work[0] - few * (work[1] - work[0]) / (many - few),
            "flops_class": (work[1] - work[0]) / (many - few),
        }
    return {
        "weights": LiveBytes(networks[few][1]).weights - 4 * each * few,
        "trained": 12 * (parameters[few] - each * few),
        "trained_class": 16 * each,
        "steps": steps,
    }


def _peak_of(backbone: Any, model: nn.Module, classes: int, precision: str) -> Callable[[int], int]:
    return lambda images: peak(_step(backbone, model, images, classes, precision), model)


def _step(backbone: Any, model: nn.Module, images: int, classes: int, precision: str) -> Callable[[], None]:
    """Forward and backward pass of a batch, half of it synthetic, as in the trainer."""

    def step() -> None:
        pixels = torch.empty(images, 3, backbone.size, backbone.size, device="meta")
        pixels = ((pixels - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        targets, half = torch.empty(images, classes, device="meta"), images // 2
        with autocast(precision):
            logits = model(pixels).float()
            real, synthetic = (logits[:half], targets[:half]), (logits[half:], targets[half:])
            loss.weighted_cross_entropy(*real, *synthetic, lam=0.5).backward()

    return step


def _classifier(name: str, classes: int) -> tuple[Any, Any]:
    """A backbone and its network on the meta device, as the trainer prepares it."""
    backbone = backbones.load(name)
    with no_weights():
        model: Any = backbone.build([f"class {k}" for k in range(classes)], descriptor="thing")
    if isinstance(model, _clip_network.Prompted):
        model.tokens = model.tokens.to("meta")
    return backbone, model.to(memory_format=torch.channels_last).train()


@contextlib.contextmanager
def no_weights() -> Iterator[None]:
    """Inside the block a backbone's `build` makes its network on the meta device and loads nothing."""

    def clip(location: str, **_: Any) -> CLIPModel:
        path = Path(location, "config.json")
        is_mini = path.is_file()
        return CLIPModel(CLIPConfig.from_json_file(path) if is_mini else CLIPConfig(vision_config={"patch_size": 16}))

    def tokenizer(prompts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        """Distinct prompts of equal length."""
        return {"input_ids": [[1 + k] * PROMPT for k in range(len(prompts))]}

    with (
        mock.patch.object(_timm, "find", return_value=Path()),
        mock.patch.object(_timm, "fresh_head", lambda model, *_, **__: model),
        mock.patch.object(CLIPModel, "from_pretrained", clip),
        mock.patch("transformers.CLIPTokenizer.from_pretrained", return_value=tokenizer),
        torch.device("meta"),
    ):
        yield


def caption(size: str) -> dict[str, Any]:
    """A captioner in bfloat16: the larger of the vision tower's peak and the language model's, keys and values kept."""
    config, _ = qwen.parts(size)
    width, vision = config.text_config.hidden_size, config.vision_config
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    model.to(torch.bfloat16).eval()

    def see(pictures: int) -> Tensor:
        """Each picture once; all blocks attend to all of it here, most of the real ones to a window."""
        tower, patches = model.model.visual, _PATCHES * _PATCHES
        ends = torch.arange(pictures + 1) * patches
        rows = torch.empty(int(ends[-1]), 3 * 2 * 14 * 14, device="meta", dtype=torch.bfloat16)
        hidden = tower.patch_embed(rows)
        angles = torch.empty(len(rows), vision.hidden_size // vision.num_heads, device="meta")
        for block in tower.blocks:
            hidden = block(hidden, cu_seqlens=ends, max_seqlen=patches, position_embeddings=(angles, angles))
        return tower.merger(hidden)

    def answer(pictures: int) -> Any:
        shape = _QUESTIONS * pictures, _TOKENS
        embedded = torch.empty(*shape, width, device="meta", dtype=torch.bfloat16)
        positions = torch.zeros(3, *shape, device="meta", dtype=torch.long)
        read = model.model.language_model(inputs_embeds=embedded, position_ids=positions, use_cache=True)
        return read, model.lm_head(read[0][:, -1:])

    phases = [slope(_quiet_peak(do, model)) for do in (see, answer)]
    work = [flops(lambda do=do: quietly(lambda: do(1))) for do in (see, answer)]
    return {
        "weights": LiveBytes(model).weights,
        "fixed": max(0, *(fixed for _, fixed in phases)),
        "image": max(image for image, _ in phases),
        "flops": sum(work) / _QUESTIONS,
    }


def _quiet_peak(do: Callable[[int], Any], model: nn.Module) -> Callable[[int], int]:
    return lambda images: peak(lambda: quietly(lambda: do(images)), model)
