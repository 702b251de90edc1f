"""Sampling compared with diffusers' own pipelines: text to image, image to image, their schedulers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from bob.core.types import Request
from bob.diffusion import checkpoints, sampling

STOCK: dict[str, Any] = {"default": PNDMScheduler, "dpm": DPMSolverMultistepScheduler, "ddim": DDIMScheduler}


@pytest.fixture(scope="module")
def pipeline(untrained_sd: Path) -> StableDiffusionPipeline:
    return checkpoints.load(f"path:{untrained_sd}", device=torch.device("cpu"), dtype=torch.float32)


def stock(folder: Path, kind: Any, scheduler: str) -> Any:
    made = kind.from_pretrained(folder, safety_checker=None)
    config = {**made.scheduler.config, "clip_sample": False, "set_alpha_to_one": False}  # as SD's own files have it
    made.scheduler = STOCK[scheduler].from_config(config)
    made.set_progress_bar_config(disable=True)
    return made


def picture(name: str) -> Image.Image:
    noise = np.random.default_rng(len(name)).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def request(k: int, **changes: Any) -> Request:
    fields: dict[str, Any] = {
        "prompt": f"a photo of a aircraft {'left' * k}",
        "seed": 7 + k,
        "steps": 6,
        "guidance": 7.5,
    }
    return Request(request_id=f"0-{k}", class_id=0, index=k, **fields | changes)


def again(k: int, **changes: Any) -> Request:
    return request(k, **{"kind": "img2img", "source_ids": ("x" * (k + 1),), "strength": 0.7, **changes})


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
def test_a_picture_with_a_value_that_is_not_finite_is_none_and_the_others_are_kept(pipeline, monkeypatch, wrong):
    asked, decode = [request(k) for k in range(3)], pipeline.vae.decode
    good = sampling.draw(pipeline, asked, sampling.Sources(pipeline))

    def broken(*given: Any, **options: Any) -> tuple[torch.Tensor]:
        decoded = decode(*given, **options)[0].clone()
        decoded[1, 2, 5, 7] = wrong
        return (decoded,)

    monkeypatch.setattr(pipeline.vae, "decode", broken)
    made = sampling.draw(pipeline, asked, sampling.Sources(pipeline))
    assert made[1] is None
    for k in (0, 2):
        assert np.array_equal(np.asarray(made[k]), np.asarray(good[k]))


@pytest.mark.parametrize("scheduler", sampling.SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_text_to_image_is_that_of_the_stock_pipeline(untrained_sd, pipeline, scheduler, guidance):
    asked = [request(k, scheduler=scheduler, guidance=guidance) for k in range(2)]
    made = sampling.latents(pipeline, asked, sampling.Sources(pipeline))
    wanted = stock(untrained_sd, StableDiffusionPipeline, scheduler)(
        [r.prompt for r in asked],
        generator=[torch.Generator().manual_seed(r.seed) for r in asked],
        guidance_scale=guidance,
        num_inference_steps=6,
        output_type="latent",
    ).images
    assert (made - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("scheduler", sampling.SCHEDULERS)
@pytest.mark.parametrize("strength", [0.2, 0.7, 1.0])
def test_image_to_image_is_that_of_the_stock_pipeline(untrained_sd, pipeline, scheduler, strength):
    asked = [again(k, scheduler=scheduler, strength=strength) for k in range(2)]
    made = sampling.latents(pipeline, asked, sampling.Sources(pipeline, picture))
    wanted = stock(untrained_sd, StableDiffusionImg2ImgPipeline, scheduler)(
        [r.prompt for r in asked],
        image=[picture(r.source_ids[0]) for r in asked],
        strength=strength,
        generator=[torch.Generator().manual_seed(r.seed) for r in asked],
        guidance_scale=7.5,
        num_inference_steps=6,
        output_type="latent",
    ).images
    assert (made - wanted).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("scheduler", "steps", "strength", "calls", "first"),
    [
        *[("dpm", 25, s, n, None) for s, n in ((0.2, 5), (0.35, 8), (0.5, 12), (0.7, 17), (0.8, 20), (1.0, 25))],
        *[("default", 50, s, n, t) for s, n, t in ((0.15, 8, 141), (0.2, 11, 201), (0.25, 13, 241), (0.35, 18, 341))],
        *[("default", 50, s, n, t) for s, n, t in ((0.5, 26, 501), (0.75, 38, 741), (1.0, 51, 981))],
    ],
)
def test_a_strength_is_so_many_calls_from_such_a_timestep(
    untrained_sd, pipeline, monkeypatch, scheduler, steps, strength, calls, first
):
    """The strengths and samplers of the baselines; the U-Net is only counted, so that it costs nothing."""
    seen: list[int] = []

    def counted(sample: torch.Tensor, time: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        seen.append(int(time))
        return (torch.zeros_like(sample),)

    asked = [again(0, scheduler=scheduler, steps=steps, strength=strength)]
    monkeypatch.setattr(pipeline.unet, "forward", counted)
    sampling.latents(pipeline, asked, sampling.Sources(pipeline, picture))
    ours, theirs = list(seen), stock(untrained_sd, StableDiffusionImg2ImgPipeline, scheduler)
    seen.clear()
    monkeypatch.setattr(theirs.unet, "forward", counted)
    theirs("a", image=picture("x"), strength=strength, num_inference_steps=steps, output_type="latent")
    assert ours == seen
    assert len(ours) == calls
    if first is not None:
        assert ours[0] == first


def test_a_strength_that_leaves_no_step_says_so(pipeline):
    with pytest.raises(ValueError, match=r"strength 0\.2 of 4 steps leaves none to draw"):
        sampling.latents(
            pipeline, [again(0, scheduler="dpm", steps=4, strength=0.2)], sampling.Sources(pipeline, picture)
        )


def test_less_strength_stays_nearer_to_the_source(pipeline):
    sources = sampling.Sources(pipeline, picture)
    far = []
    for strength in (0.2, 0.6, 1.0):
        (drawn,) = sampling.draw(pipeline, [again(0, strength=strength, guidance=1.0)], sources)
        far.append(np.abs(np.asarray(drawn).astype(int) - np.asarray(picture("x"))).mean())
    assert far == sorted(far)


@pytest.mark.parametrize("kind", ["text2img", "img2img", "circle"])
def test_an_image_does_not_depend_on_its_batch(pipeline, kind):
    fields = {"img2img": again, "text2img": request}.get(kind, again)
    asked = [fields(k) if kind != "circle" else circled(k) for k in range(4)]
    together = np.stack(sampling.draw(pipeline, asked, sampling.Sources(pipeline, picture))).astype(int)
    alone = [sampling.draw(pipeline, [one], sampling.Sources(pipeline, picture))[0] for one in reversed(asked)]
    assert np.abs(np.stack(alone[::-1]).astype(int) - together).max() <= 1
    assert len({row.tobytes() for row in together}) == 4


def circled(k: int) -> Request:
    ids = ("x", "x" * (k + 2)) if k else ("x",)
    return request(k, kind="circle", scheduler="ddim", steps=3, source_ids=ids, background="left", switch_at=0.5)


def test_each_source_is_opened_once_and_its_aspect_kept(pipeline):
    opened: list[str] = []

    def wide(name: str) -> Image.Image:
        opened.append(name)
        return picture(name).resize((96, 64)).convert("L")

    asked = [again(k, source_ids=(name,)) for k, name in enumerate(["x", "y", "x", "y"])]
    drawn = sampling.draw(pipeline, asked, sampling.Sources(pipeline, wide))
    assert {one.size for one in drawn} == {(48, 32)}
    assert opened == ["x", "y"]
