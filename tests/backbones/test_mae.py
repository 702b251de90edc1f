"""MAE's fine-tuning recipe: layer-wise learning rates, schedule and head as in its authors' code."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import vit_base_patch16_224

from bob import backbones
from bob.backbones import mae_mini
from bob.classifier import trainer
from bob.classifier.data import Data
from bob.core.settings import Point

NAMES = ("a", "b", "c")


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """An untrained encoder where the backbone looks first, as pre-training leaves it."""
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    (tmp_path / "mae_mini").mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = mae_mini.network(0, pretraining=True).state_dict()
    save_file(state, tmp_path / "mae_mini" / "model.safetensors")
    return state


def official(name: str, depth: int) -> int:
    """Layer of a parameter as MAE's util/lr_decay.py numbers it."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1


@pytest.mark.parametrize("decay", [0.65, 0.75])
def test_rates_and_weight_decays_are_the_official_ones(decay):
    with torch.device("meta"):
        model = vit_base_patch16_224(num_classes=100, global_pool="avg")
    groups = backbones.load("mae_vit_b16").parameter_groups(model, weight_decay=0.05, layer_decay=decay)
    assert sum(p.numel() for p in model.parameters()) == 85_798_656 + 100 * 769
    place = {id(p): group for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = place[id(parameter)]
        assert group["lr_scale"] == pytest.approx(decay ** (13 - official(name, 12))), name
        bare = parameter.ndim == 1 or name in ("pos_embed", "cls_token")
        assert group["weight_decay"] == (0.0 if bare else 0.05), name
    scales = sorted({group["lr_scale"] for group in groups})
    assert len(scales) == 14
    assert (scales[0], scales[1], scales[-2]) == pytest.approx((decay**13, decay**12, decay))


@pytest.mark.parametrize(("base", "peak"), [(1e-3, 2.5e-4), (5e-4, 1.25e-4)])
def test_the_rate_is_the_base_rate_times_64_over_256(base, peak, mini):
    """Its warm-up begins at 0 and its cosine ends at 1e-6, each times the layer's scale."""
    sweep = backbones.load("mae_vit_b16").sweep
    point = Point(lr=base, weight_decay=0.05, lam=0.5, layer_decay=0.65)
    training = trainer.Training(backbone="mae_mini", point=point, settings=sweep, epochs=10, seed=0)
    one = trainer.Trainer(_data(), training, torch.device("cpu"))
    rates = []
    for _ in range(10 * 8):
        one._set_learning_rate(8)
        rates.append({group["lr_scale"]: group["lr"] for group in one.optimizer.param_groups})
    assert rates[0][1.0] == 0.0
    assert rates[40][1.0] == pytest.approx(peak)
    assert rates[20][1.0] == pytest.approx(peak / 2)
    assert rates[-1][1.0] == pytest.approx(1e-6)
    for step in rates:
        assert all(rate == pytest.approx(scale * step[1.0]) for scale, rate in step.items())


def test_the_recipe_is_the_official_one():
    sweep = backbones.load("mae_vit_b16").sweep
    assert (sweep.lrs, sweep.layer_decays, sweep.weight_decays) == ((1e-3, 5e-4), (0.65, 0.75), (0.05,))
    assert (sweep.warmup_epochs, sweep.mixup_alpha, sweep.label_smoothing, sweep.mix_probability) == (
        5.0,
        0.8,
        0.1,
        1.0,
    )


def test_the_encoder_is_taken_and_its_last_norm_and_head_are_fresh(mini):
    model = backbones.load("mae_mini").build(NAMES, descriptor="aircraft").eval()
    held = model.state_dict()
    assert all(torch.equal(held[name], value) for name, value in mini.items() if not name.startswith("norm."))
    assert not any(name.startswith("norm.") for name in held)
    assert torch.equal(held["fc_norm.weight"], torch.ones(96))
    assert held["head.weight"].std() == pytest.approx(0.01, rel=0.2)
    tokens = model.forward_features(torch.rand(2, 3, 32, 32))
    assert torch.allclose(model.pool(tokens), tokens[:, 1:].mean(1))  # patches only


def test_evaluation_sees_the_middle_of_256():
    backbone = backbones.load("mae_vit_b16")
    images = torch.zeros(1, 3, 320, 320)
    images[..., 20:-20, 20:-20] = 1.0  # 16 of 256 on each side
    seen = backbone.view(images)
    assert seen[..., 3:-3, 3:-3].min() > 0.99
    assert seen.shape == (1, 3, 224, 224)


def _data() -> Data:
    return Data(
        class_names=NAMES,
        descriptor="aircraft",
        real=np.zeros((3, 32, 32, 3), np.uint8),
        real_labels=np.arange(3),
        val=np.zeros((3, 32, 32, 3), np.uint8),
        val_labels=np.arange(3),
        synthetic=np.zeros((0, 32, 32, 3), np.uint8),
        synthetic_labels=np.zeros((0, 3), np.float32),
    )


def test_pretraining_hides_three_quarters_and_is_judged_on_these():
    from bob.skyworld.pretrain_mae import Mae, _patches

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Mae()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(_patches(images)[1, 9, ::3][:4], images[1, 0, 4, 4:8])  # 9: second row, second patch
    lengths = []
    model.encoder.blocks.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    error = model(images, torch.Generator().manual_seed(0)).item()
    assert lengths == [16 + 1]
    assert 0.5 < error < 3
    torch.nn.init.zeros_(model.outward.weight)
    torch.nn.init.zeros_(model.outward.bias)
    assert model(images, torch.Generator().manual_seed(0)).item() == pytest.approx(1, abs=0.03)
