"""Image features: what a classifier's head reads, at evaluation preprocessing; broken extractors are detected."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_model

from bob import backbones
from bob.classifier.embedder import Embedder
from bob.datasets import load

PICTURES = [load("skyworld").open(shot) for shot in load("skyworld").split(shots=1, val=1, seed=0)[:5]]


def features(embed: Embedder, pictures: list[Image.Image]) -> np.ndarray:
    rows, rejected = embed([str(k) for k in range(len(pictures))], [0] * len(pictures), lambda k: pictures[k])
    assert rejected == []
    return np.stack([row["features"] for row in rows])


def seen(backbone: backbones.Backbone) -> torch.Tensor:
    """The pictures as skyworld's models take them."""
    pixels = np.stack([backbone.prepare(picture) for picture in PICTURES])
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


@pytest.mark.parametrize(("name", "width"), [("resnet_mini", 128), ("mae_mini", 96)])
def test_the_head_makes_logits_of_them(name: str, width: int) -> None:
    backbone = backbones.load(name)
    torch.manual_seed(0)
    model: Any = backbone.build(("a", "b", "c"), descriptor="aircraft").eval()
    images = seen(backbone)
    with torch.inference_mode():
        found = backbone.features(model, images)
        assert found.shape == (5, width)
        torch.testing.assert_close(model.get_classifier()(found), model(images))
    np.testing.assert_allclose(features(Embedder(name, device="cpu"), PICTURES), found.numpy(), rtol=1e-5, atol=1e-5)


def test_clips_are_its_embeddings() -> None:
    backbone = backbones.load("clip_mini")
    model: Any = backbone.build(("Zephyr", "Bora"), descriptor="aircraft").eval()
    images = seen(backbone)
    with torch.inference_mode():
        found = backbone.features(model, images)
        cosines = torch.nn.functional.normalize(found) @ model._texts().T
        torch.testing.assert_close(model.clip.logit_scale.exp() * cosines, model(images))


def test_the_extractor_of_real_pictures_is_a_2048_wide_inception(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    with pytest.raises(ValueError, match=r"wanted the weights of timm:inception_v3\.tf_in1k"):
        features(Embedder("timm:inception_v3.tf_in1k", device="cpu"), PICTURES[:1])
    (tmp_path / "timm-inception_v3.tf_in1k").mkdir()
    torch.manual_seed(0)
    network = timm.create_model("inception_v3", pretrained=False)
    save_model(network, str(tmp_path / "timm-inception_v3.tf_in1k" / "model.safetensors"))
    embed = Embedder("timm:inception_v3.tf_in1k", device="cpu")
    found = features(embed, [picture.resize((400, 320)) for picture in PICTURES[:2]])
    assert found.shape == (2, 2048)
    assert (found[0] != found[1]).any()


def test_features_do_not_depend_on_their_batch_and_draw_nothing() -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    embed = Embedder("resnet_mini", device="cpu")
    together = features(embed, PICTURES * 9)
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_allclose(
        together, np.tile(np.concatenate([features(embed, [p]) for p in PICTURES]), (9, 1)), atol=1e-5
    )


def test_a_picture_that_cannot_be_read_is_rejected_alone() -> None:
    def read(k: int) -> Image.Image:
        if k == 1:
            raise ValueError("it is torn")
        return PICTURES[k]

    rows, rejected = Embedder("resnet_mini", device="cpu")(["a", "b", "c"], [4, 5, 6], read)
    assert [(row["id"], row["class_id"]) for row in rows] == [("a", 4), ("c", 6)]
    assert rejected == [{"row_id": "b", "step": "embed", "error": "ValueError", "message": "it is torn"}]
