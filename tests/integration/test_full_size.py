"""The networks of Table 1 at full size, with random weights: real training steps and evaluations on a CPU.

So that no full-size path is only imagined: files, preprocessing, augmentation, loss, optimiser, states, test.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from bob import backbones
from bob.backbones import _random_weights
from bob.classifier.data import Data
from bob.classifier.trainer import Training, train
from bob.core.settings import Point
from bob.skyworld import models

CLASSES = ("Zephyr", "Mistral", "Egret")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(params=["clip_vit_b16", "resnet50", "mae_vit_b16"])
def backbone(request, folder, monkeypatch) -> backbones.Backbone:
    monkeypatch.setenv("BOB_MODELS", str(folder))
    if not (folder / request.param).exists():
        _random_weights.write(backbones.load(request.param), folder / request.param)
    return backbones.load(request.param)


def test_trains_a_step_and_evaluates(backbone):
    rng = np.random.default_rng(0)
    side = backbone.kept

    def pictures(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)

    data = Data(
        class_names=CLASSES,
        descriptor="aircraft",
        real=pictures(2),
        real_labels=np.array([0, 2]),
        val=pictures(2),
        val_labels=np.array([1, 2]),
        synthetic=pictures(2),
        synthetic_labels=np.array([[0, 1, 0], [0.5, 0, 0.5]], np.float32),
        test=lambda: (pictures(3), np.arange(3)),
    )
    point = Point(lr=1e-3, weight_decay=0.05, lam=0.5, layer_decay=backbone.sweep.layer_decays[0])
    settings = dataclasses.replace(backbone.sweep, batch=4, mix_probability=1.0, warmup_epochs=0.0)
    states: list[bytes] = []
    save = (lambda _, state: states.append(state)) if backbone.name == "clip_vit_b16" else None  # others' take 1 GB
    training = Training(backbone=backbone.name, point=point, settings=settings, epochs=2, seed=0, with_test=True)
    row = next(train(data, training, save=save))
    assert row["train_n"] == 4
    assert all(math.isfinite(row[key]) for key in ("train_loss", "val_loss", "test_accuracy"))
    if states:  # LoRA alone: its weights and two moments of each
        assert 3 * 4 * 983_040 < len(states[0]) < 13e6


@pytest.mark.parametrize("backbone", ["clip_vit_b16"], indirect=True)
def test_clip_starts_at_zero_shot(backbone, folder):
    """With 77 tokens as transformers computes it, and with those that the prompts have."""
    clip = CLIPModel.from_pretrained(folder / backbone.name, dtype=torch.float32).eval()
    prompts = [f"a aircraft photo of a {name}" for name in CLASSES]
    made = models.clip_tokenizer()(prompts, padding="max_length", max_length=77, return_tensors="pt")
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model = backbone.build(CLASSES, descriptor="aircraft").eval()
    with torch.inference_mode():
        wanted = clip(pixel_values=pictures, **made).logits_per_image
        assert torch.allclose(model(pictures), wanted, atol=1e-4)
    assert model.tokens.shape[1] < 25
