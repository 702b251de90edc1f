"""CLIP as a classifier: zero-shot start, prompts truncated and encoded once, LoRA in both towers only."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from bob import backbones
from bob.backbones import _clip_network
from bob.backbones._clip_network import Prompted
from bob.core.prompts import class_prompt
from bob.skyworld import models

NAMES = ("Zephyr", "Kestrel", "Levanter", "Egret")


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """An untrained mini CLIP where the backbones look first; the very weights, and their tokenizer."""
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    tokenizer = models.clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = models.clip(tokenizer).eval()
    clip.save_pretrained(tmp_path / "clip_mini")
    tokenizer.save_pretrained(tmp_path / "clip_mini")
    return clip, tokenizer


@pytest.fixture
def pictures():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def learn(model: torch.nn.Module) -> None:
    """As if it had been trained: LoRA's B is not zero any more."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.3)


def zero_shot(clip, tokenizer, pictures, *, length: int) -> torch.Tensor:
    """As transformers computes it, prompts filled up to `length` tokens."""
    prompts = [class_prompt("aircraft", name) for name in NAMES]
    made = tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
    with torch.inference_mode():
        return clip(pixel_values=pictures, **made).logits_per_image


def test_starts_at_zero_shot(mini, pictures):
    clip, tokenizer = mini
    model = backbones.load("clip_mini").build(NAMES, descriptor="aircraft").eval()
    wanted = zero_shot(clip, tokenizer, pictures, length=models.TOKENS)
    assert torch.allclose(model(pictures), wanted, atol=1e-4)
    assert wanted.std() > 0.01


def test_cut_prompts_give_the_logits_of_full_ones(mini, pictures):
    """Trained or not: attention is causal, and the end token's embedding counts."""
    clip, tokenizer = mini
    _clip_network.add_lora(clip)
    learn(clip)
    prompts = [class_prompt("aircraft", name) for name in NAMES]
    model = Prompted(clip, tokenizer, prompts).eval()
    assert model.tokens.shape[1] < models.TOKENS
    full = Prompted(clip, tokenizer, prompts).eval()
    full.tokens = torch.tensor(tokenizer(prompts, padding="max_length", max_length=models.TOKENS)["input_ids"])
    with torch.inference_mode():
        assert torch.allclose(model(pictures), full(pictures), atol=1e-5)
    assert torch.allclose(model(pictures), zero_shot(clip, tokenizer, pictures, length=models.TOKENS), atol=1e-4)


def test_merged_is_unmerged(mini, pictures):
    from peft.tuners.lora import LoraLayer

    model = backbones.load("clip_mini").build(NAMES, descriptor="aircraft").eval()
    before = model(pictures)
    learn(model)
    tuned = model.eval()(pictures)
    assert not torch.allclose(before, tuned, atol=1e-3)
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    assert len(layers) == 2 * (4 + 3)
    for layer in layers:
        layer.merge()
    assert torch.allclose(model.eval()(pictures), tuned, atol=1e-4)


def test_prompts_are_encoded_once_an_evaluation_and_at_every_step(mini, pictures, monkeypatch):
    model = backbones.load("clip_mini").build(NAMES, descriptor="aircraft")
    seen = []
    monkeypatch.setattr(model.clip, "get_text_features", _spy(model.clip.get_text_features, seen))
    model.eval()
    for _ in range(3):
        model(pictures)
    assert len(seen) == 1
    model.train()
    for _ in range(2):
        model(pictures)
    assert len(seen) == 3
    first = model.eval()(pictures)
    learn(model)
    assert not torch.allclose(model.eval()(pictures), first)  # what was encoded before is forgotten
    assert len(seen) == 5


def _spy(original, seen):
    def spy(**arguments):
        seen.append(arguments)
        return original(**arguments)

    return spy


def test_only_lora_learns_and_everything_of_it_does(mini, pictures):
    model = backbones.load("clip_mini").build(NAMES, descriptor="aircraft").train()
    (group,) = backbones.load("clip_mini").parameter_groups(model, weight_decay=0.1, layer_decay=1.0)
    assert sum(p.numel() for p in group["params"]) == 2 * 7 * 16 * (96 + 96)
    learn(model)
    model(pictures).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ("lora_" in name), name


def test_the_full_size_learns_983_040_parameters():
    """12 blocks of width 768 and 12 of width 512, q and v, A and B of rank 16."""
    config = CLIPConfig(vision_config={"patch_size": 16})
    with torch.device("meta"):
        clip = CLIPModel(config)
        _clip_network.add_lora(clip)
    trained = {name: p.numel() for name, p in clip.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 983_040
    assert sum(count for name, count in trained.items() if "vision" in name) == 589_824
    assert sum(p.numel() for p in clip.parameters()) == 149_620_737 + 983_040
    assert all(name.split(".")[-4] in ("q_proj", "v_proj") for name in trained)


def test_any_checkpoint_from_a_folder(mini, tmp_path):
    name = f"clip:path:{tmp_path / 'clip_mini'}"
    backbone = backbones.load(name)
    assert (backbone.name, backbone.size, backbone.kept) == (name, 32, 32)
    assert backbone.revision != "1"
    model = backbone.build(NAMES, descriptor="aircraft").eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_weights_that_are_not_there_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    with pytest.raises(ValueError, match=r"wanted the weights of clip_vit_b16.* BOB_MODELS .* holds clip_vit_b16, as"):
        backbones.load("clip_vit_b16").build(NAMES, descriptor="aircraft")


def test_classes_that_read_the_same_are_refused(mini):
    with pytest.raises(ValueError, match="two of them read the same"):
        backbones.load("clip_mini").build(("Egret", "egret"), descriptor="aircraft")
