"""Every registered backbone, without its weights; a new file is covered with no edit here."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bob import backbones
from bob.core import registry

NAMES = ("a", "b", "c")


def _name(file: str) -> str:
    """Of a family one of its checkpoints."""
    held = registry.load("backbone", file)
    return f"{file}:{held.example}" if isinstance(held, backbones.Family) else file


every_backbone = pytest.mark.parametrize("name", [_name(file) for file in registry.names("backbone")])
resnets = pytest.mark.parametrize("name", ["resnet50", "resnet_mini"])


@pytest.fixture
def own_weights(monkeypatch, tmp_path):
    """$BOB_MODELS with random weights of both ResNets, whose heads have classes of their own."""
    import timm

    from bob.backbones import resnet_mini

    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    for name, model in (("resnet50", timm.create_model("resnet50")), ("resnet_mini", resnet_mini.network(60))):
        (tmp_path / name).mkdir()
        save_file(model.state_dict(), tmp_path / name / "model.safetensors")


@every_backbone
def test_keeps_a_picture_of_any_shape_as_a_square(name):
    backbone = backbones.load(name)
    assert backbone.name == name
    for size in ((50, 40), (300, 600)):
        kept = backbone.prepare(Image.new("RGBA", size, "red"))
        assert kept.shape == (backbone.kept, backbone.kept, 3)
        assert kept.dtype == np.uint8
        assert (kept == (255, 0, 0)).all()


@every_backbone
def test_augments_by_its_generator_alone(name):
    backbone = backbones.load(name)
    images = torch.rand(3, 3, backbone.kept, backbone.kept)
    before = torch.get_rng_state()
    one, same, other = (backbone.augment(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.shape == (3, 3, backbone.size, backbone.size)
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@every_backbone
def test_augments_each_picture_for_itself(name):
    backbone = backbones.load(name)
    image = torch.rand(1, 3, backbone.kept, backbone.kept).expand(4, -1, -1, -1)
    made = backbone.augment(image, torch.Generator().manual_seed(0))
    assert not any(torch.equal(made[0], other) for other in made[1:])


@every_backbone
def test_evaluation_sees_the_whole_picture_at_the_models_size(name):
    backbone = backbones.load(name)
    images = torch.full((2, 3, backbone.kept, backbone.kept), 0.25)
    assert torch.allclose(backbone.view(images), torch.full((2, 3, backbone.size, backbone.size), 0.25))


@resnets
def test_takes_all_but_the_head_from_the_weights(name, own_weights):
    backbone = backbones.load(name)
    model = backbone.build(NAMES, descriptor="aircraft").eval()
    logits = model(torch.zeros(2, 3, backbone.size, backbone.size))
    assert logits.shape == (2, len(NAMES))
    (group,) = backbone.parameter_groups(model, weight_decay=0.2, layer_decay=1.0)
    assert (group["lr_scale"], group["weight_decay"]) == (1.0, 0.2)
    assert len(group["params"]) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="layer_decay must be 1, got"):
        backbone.parameter_groups(model, weight_decay=0.2, layer_decay=0.5)


@resnets
def test_foreign_weights_are_refused(name, own_weights, tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / name / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit ResNet"):
        backbones.load(name).build(NAMES, descriptor="aircraft")


def test_absent_weights_say_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    def offline(*_, **__):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    with pytest.raises(ValueError, match=r"Set BOB_MODELS to a folder that holds resnet50/model\.safetensors, or"):
        backbones.load("resnet50").build(NAMES, descriptor="aircraft")


def test_full_size_architecture_is_resnet50():
    import timm

    with torch.device("meta"):
        model = timm.create_model("resnet50.tv_in1k", num_classes=100)
    assert sum(p.numel() for p in model.parameters()) == 23_508_032 + 100 * 2049


def test_the_mini_starts_from_its_package_data(monkeypatch):
    monkeypatch.delenv("BOB_MODELS", raising=False)
    model = backbones.load("resnet_mini").build(NAMES, descriptor="aircraft")
    assert 0.4e6 < sum(p.numel() for p in model.parameters()) < 1e6


@pytest.mark.parametrize(
    ("name", "with_synthetic", "without"), [("clip_vit_b16", 16, 8), ("resnet50", 18, 9), ("mae_vit_b16", 8, 4)]
)
def test_grids_of_the_paper(name, with_synthetic, without):
    """Table 4 and sec. A.1: 16 + 18 + 8 points; where nothing is drawn there is no lambda."""
    sweep = backbones.load(name).sweep
    assert len(set(sweep.points(has_synthetic=True))) == with_synthetic
    assert len(set(sweep.points(has_synthetic=False))) == without
    assert (sweep.batch, sweep.sweep_epochs, sweep.final_epochs, sweep.lambdas) == (64, 10, 100, (0.5, 0.8))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet5", "Did you mean 'resnet50'"),
        ("timm", "wants a checkpoint after a colon, as in timm:vit_base_patch14_dinov2"),
        ("timm:resnet5", "timm has no pre-trained model 'resnet5'; near it are .*resnet50"),
        ("resnet50:a1", "has one checkpoint only: leave out 'a1'"),
        ("clip:path:/nowhere", "/nowhere is no CLIP: it has no config.json"),
    ],
)
def test_a_name_that_means_nothing_says_what_is_known(name, words):
    with pytest.raises(ValueError, match=words):
        backbones.load(name)


def test_any_timm_model_by_its_name(monkeypatch, tmp_path):
    import timm

    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    backbone = backbones.load("timm:test_vit.r160_in1k")
    (tmp_path / "timm-test_vit.r160_in1k").mkdir()
    weights = timm.create_model("test_vit").state_dict()
    save_file(weights, tmp_path / "timm-test_vit.r160_in1k" / "model.safetensors")
    model = backbone.build(NAMES, descriptor="aircraft").eval()
    assert backbone.size == 160
    assert model(torch.zeros(2, 3, 160, 160)).shape == (2, 3)
    assert all(torch.equal(held, weights[name]) for name, held in model.state_dict().items() if "head" not in name)
    scales = {group["lr_scale"] for group in backbone.parameter_groups(model, weight_decay=0.1, layer_decay=0.5)}
    assert {1.0, 0.5, 0.25} <= scales
