"""Diff-II's sampling: DDIM inversion, circular interpolation of two latents, two-stage prompts."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from bob.core.types import Request
from bob.diffusion import checkpoints, circle, sampling


@pytest.fixture(scope="module")
def pipeline(untrained_sd: Path) -> Any:
    return checkpoints.load(f"path:{untrained_sd}", device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def two() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of equal norm, of a full-size model's number of elements."""
    one, other = torch.randn((2, 4, 64, 64), generator=torch.Generator().manual_seed(3))
    return one, (one + 2 * other) * one.norm() / (one + 2 * other).norm()


def picture(name: str) -> Image.Image:
    y, x = np.mgrid[:32, :32]
    waves = [np.sin(x / (k + len(name)) + y / 5) for k in (2, 3, 4)]
    return Image.fromarray((127 + 100 * np.stack(waves, -1)).astype(np.uint8))


def request(k: int, **changes: Any) -> Request:
    fields: dict[str, Any] = {"prompt": "a photo of a aircraft in the dark forest", "background": "in the dark forest"}
    fields |= {
        "seed": k,
        "kind": "circle",
        "scheduler": "ddim",
        "steps": 4,
        "source_ids": ("x", "yy"),
        "switch_at": 0.5,
    }
    return Request(request_id=f"0-{k}", class_id=0, index=k, **fields | changes)


# -- geometry -----------------------------------------------------------------------------------


def test_the_circle_goes_through_both_and_keeps_the_norm(two):
    one, other = two
    between = float(circle.angle(one, other))
    last = 2 * math.pi / between - 1
    assert torch.allclose(circle.interpolate(one, other, 0.0), one, atol=1e-5)
    assert torch.allclose(circle.interpolate(one, other, last), other, atol=1e-5)
    assert torch.allclose(circle.interpolate(one, other, math.pi / between), -one, atol=1e-5)
    assert torch.allclose(circle.interpolate(one, other, 2 * math.pi / between), one, atol=1e-5)
    for alpha in np.linspace(0, last + 1, 9):
        assert circle.interpolate(one, other, alpha).norm() == pytest.approx(float(one.norm()), rel=1e-5)


def test_a_point_lies_in_the_plane_of_both_at_any_angle(two):
    one, other = two
    flat = torch.stack([one.flatten(), other.flatten()], 1).double()
    angles = []
    for seed in range(200):
        point = circle.point(one, other, seed=seed).flatten().double()
        share = torch.linalg.lstsq(flat, point[:, None]).solution
        assert (flat @ share - point[:, None]).norm() < 1e-3 * point.norm()
        angles.append(float(circle.angle(one, point.view_as(one))))
    counts = np.histogram(angles, bins=4, range=(0, math.pi))[0]
    assert counts.min() > 30  # uniform round the circle: 50 each


@pytest.mark.parametrize("other", ["none", "same", "opposite"])
def test_without_a_second_latent_the_one_is_turned_and_keeps_its_norm(two, other):
    one = two[0]
    given = {"none": None, "same": one.clone(), "opposite": -one}[other]
    points = [circle.point(one, given, seed=seed) for seed in range(20)]
    assert all(torch.isfinite(point).all() for point in points)
    assert all(point.norm() == pytest.approx(float(one.norm()), rel=1e-5) for point in points)
    assert len({float(point.sum()) for point in points}) == 20
    assert torch.equal(points[3], circle.point(one, given, seed=3))
    straight = circle.random_turn(one, math.pi / 2, torch.Generator().manual_seed(0))
    assert float(circle.angle(one, straight)) == pytest.approx(math.pi / 2)


def test_an_angle_of_half_precision_latents_is_not_lost(two):
    one, other = (latent.half() * 30 for latent in two)  # their inner product is beyond float16
    assert float(circle.angle(one, other)) == pytest.approx(float(circle.angle(*two)), abs=1e-3)


# -- inversion ----------------------------------------------------------------------------------


@torch.inference_mode()
def test_ddim_leads_back_from_an_inversion():
    """On the trained mini model: the latents of a picture, inverted and drawn again at guidance 1."""
    from bob.datasets._render import render

    pipeline: Any = checkpoints.load("skyworld", device=torch.device("cpu"), dtype=torch.float32)
    prompt = "a aircraft photo of a Osprey in the dark forest background with the level left pose."
    source = render("Osprey", "dark forest", "level left", seed=1, size=32)
    pixels = pipeline.image_processor.preprocess([source])
    latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    (noise,) = circle.invert(pipeline, [source], [prompt], steps=50)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    back = pipeline(
        prompt, latents=noise[None], num_inference_steps=50, guidance_scale=1.0, output_type="latent"
    ).images
    assert (back - latents).norm() < 0.1 * latents.norm()
    assert (noise[None] - latents).norm() > 0.5 * latents.norm()
    assert 0.5 < float(noise.std()) < 1.2


def test_inversions_are_made_once_and_in_batches(pipeline, monkeypatch):
    made: list[int] = []
    original = circle.invert

    def counted(of: Any, pictures: Any, prompts: Any, *, steps: int) -> torch.Tensor:
        made.append(len(pictures))
        assert steps == 8 * 4
        assert set(prompts) == {"a photo of a aircraft"}
        return original(of, pictures, prompts, steps=4)

    monkeypatch.setattr(circle, "invert", counted)
    sources = sampling.Sources(pipeline, picture)
    sampling.draw(pipeline, [request(0), request(1), request(2, source_ids=("zzz",))], sources)
    sampling.draw(pipeline, [request(3), request(4, source_ids=("yy", "zzzz"))], sources)
    assert made == [3, 1]


# -- two prompts --------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "steps"), [(1.0, 25), (0.3, 7), (0.1, 2), (0.0, 0)])
def test_the_suffix_stays_for_so_many_of_25_steps(pipeline, split, steps):
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    assert circle.steps_before_switch(scheduler, 25, split) == steps
    assert scheduler.timesteps[[0, 1, -1]].tolist() == [961, 921, 1]


@pytest.mark.parametrize("split", [0.0, 0.5, 1.0])
def test_the_prompt_changes_where_it_should(pipeline, monkeypatch, split):
    whole, bare = (
        pipeline.encode_prompt([p], "cpu", 1, False)[0] for p in (request(0).prompt, "a photo of a aircraft")
    )
    seen: list[str] = []
    original = pipeline.unet.forward

    def noted(sample: Any, time: Any, encoder_hidden_states: Any, **more: Any) -> Any:
        text = encoder_hidden_states[-1:]
        seen.append("whole" if torch.allclose(text, whole, atol=1e-5) else "bare")
        assert torch.allclose(text, whole if seen[-1] == "whole" else bare, atol=1e-5)
        return original(sample, time, encoder_hidden_states=encoder_hidden_states, **more)

    sources = sampling.Sources(pipeline, picture)
    sources.inverted([("x", "a photo of a aircraft"), ("yy", "a photo of a aircraft")], steps=32)
    monkeypatch.setattr(pipeline.unet, "forward", noted)
    for guidance in (1.0, 7.5):
        seen.clear()
        sampling.latents(pipeline, [request(0, switch_at=split, guidance=guidance)], sources)
        assert seen == ["whole"] * int(4 * split) + ["bare"] * (4 - int(4 * split))
