"""The paper's models at full size on a GPU without numbers: devices, dtypes, shapes and waits of real steps."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bob import backbones
from bob.backbones import _timm
from bob.core.types import Tuning
from bob.diffusion import circle, micro_batches, sampling, training
from tests.devices import actions, checks, full_size, installed
from tests.devices.pretended_gpu import PretendedGpu

WIDTH = {"sd15": 768, "sd21": 1024}
slow = pytest.mark.slow


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    with installed.install(monkeypatch, numbers=False) as active:
        yield active


class Seen:
    """What a U-Net is given, and what it returns."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.images = 0
        """Of all calls together."""
        self.shapes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        """Of an image's latents and of its text."""
        self.dtypes: set[torch.dtype] = set()
        unet.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, unet: Any, args: tuple[Any, ...], named: dict[str, Any], returned: Any) -> None:
        text = named.get("encoder_hidden_states", args[-1])
        noise = returned[0] if isinstance(returned, tuple) else returned.sample
        assert args[0].is_cuda
        assert text.is_cuda
        assert noise.is_cuda
        assert noise.shape == args[0].shape
        assert len(args[0]) == len(text)
        self.images += len(text)
        self.shapes.add((tuple(args[0].shape[1:]), tuple(text.shape[1:])))
        self.dtypes |= {args[0].dtype, text.dtype, noise.dtype}


@pytest.mark.parametrize(
    ("name", "tuning", "side", "card"),
    [
        ("sd15", "LoRA", 512, 141),
        pytest.param("sd15", "words", 512, 141, marks=slow),
        pytest.param("sd15", "LoRA and words", 224, 141, marks=slow),
        pytest.param("sd15", "LoRA", 512, 24, marks=slow),
        pytest.param("sd21", "LoRA", 512, 80, marks=slow),
        pytest.param("sd21", "LoRA and words", 224, 40, marks=slow),
    ],
)
def test_a_step_of_a_finetune(gpu, monkeypatch, name, tuning, side, card):
    """On cards of so many GB: where the batch does not fit, in micro-batches or with gradient checkpointing."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(0.95e9 * card), int(1e9 * card)))
    monkeypatch.setattr(micro_batches, "_known", {})
    pipeline = full_size.pipeline(name, torch.float32)
    seen = Seen(pipeline.unet)
    given = actions.TUNINGS[tuning]
    shown = Tuning(**vars(given) | {"side": side, "each": 80})  # the batch of 80, of three images
    actions.finetune(shown, pipeline=pipeline, steps=1, batch=80)
    gpu.require({"_Milestones.__call__": 1})
    assert seen.images == 80
    assert seen.shapes == {((4, side // 8, side // 8), (77, WIDTH[name]))}
    assert seen.dtypes == {torch.float32}
    trained = training.lora.parameters(pipeline.unet, pipeline.text_encoder)
    assert all(parameter.is_cuda and parameter.dtype == torch.float32 for parameter in trained.values())
    assert all(parameter.grad.shape == parameter.shape for parameter in trained.values())


def test_on_a_small_card_a_finetune_is_checkpointed_or_refused_with_the_numbers(gpu, monkeypatch, capsys):
    monkeypatch.setattr(micro_batches, "_known", {})
    pipeline = full_size.pipeline("sd15", torch.float32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(7e9), int(7.4e9)))
    with pytest.raises(ValueError, match=r"does not fit on this GPU: one image needs 6\.\d GB, .* 6\.3 GB may be used"):
        actions.finetune(Tuning(), pipeline=pipeline, steps=1)
    pipeline = full_size.pipeline("sd15", torch.float32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(7.6e9), int(8e9)))
    actions.finetune(Tuning(), pipeline=pipeline, steps=1)
    assert "micro-batches of 1 of 2 images, with gradient checkpointing" in capsys.readouterr().out
    gpu.require({"_Milestones.__call__": 1})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd21", "text2img"),
        pytest.param("sd15", "text2img by DPM-Solver", marks=slow),
        pytest.param("sd15", "img2img", marks=slow),
        pytest.param("sd15", "circle", marks=slow),
        pytest.param("sd21", "circle", marks=slow),
    ],
)
def test_a_batch_of_images(gpu, monkeypatch, name, kind):
    monkeypatch.setattr(circle, "INVERSION", 1)
    pipeline = full_size.pipeline(name, torch.float16)
    seen = Seen(pipeline.unet)
    requests = [actions.request(k, **actions.KINDS[kind] | {"steps": 2}) for k in range(10)]
    sources = sampling.Sources(pipeline, lambda name: actions.picture(name, width=40))
    decoded: list[torch.Tensor] = []
    pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: decoded.append(args[0]))
    assert sampling.draw(pipeline, requests, sources) == [None] * 10  # zeros are read, also for what is finite
    gpu.require(checks.BATCH | {"Sources.inverted": 1})
    assert [(latents.is_cuda, latents.dtype, tuple(latents.shape)) for latents in decoded] == [
        (True, torch.float16, (images, 4, 64, 64)) for images in (8, 2)
    ]
    assert seen.shapes == {((4, 64, 64), (77, WIDTH[name]))}
    assert seen.dtypes == {torch.float16}


@pytest.mark.parametrize("name", ["resnet50", "clip_vit_b16", "mae_vit_b16"])
def test_a_step_and_an_evaluation_of_a_backbone(gpu, monkeypatch, name):
    without_weights(monkeypatch)
    trainer = actions.trainer(name, "cuda", images=32, batch=64)
    gpu.waits.clear()
    _, count = trainer.run_epoch(1)
    logits = trainer.logits(trainer.data.val)
    gpu.require({"Trainer.run_epoch": 1, "Trainer.logits": 1})
    assert count == 64
    assert logits.shape == (32, len(actions.CLASSES))
    assert logits.dtype == torch.float32
    assert all(parameter.is_cuda and parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert all(parameter.grad.shape == parameter.shape for parameter in trained)


def without_weights(patch: pytest.MonkeyPatch) -> None:
    """Backbones are built without numbers, and load none."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    from bob.skyworld import models

    tokenizer = models.clip_tokenizer()
    tokenizer.model_max_length = 77
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config=ends, vision_config={"patch_size": 16})
    patch.setattr(_timm, "find", lambda *_, **__: None)
    patch.setattr(_timm, "fresh_head", lambda model, *_, **__: model)
    patch.setattr(CLIPModel, "from_pretrained", lambda *_, **__: CLIPModel(config))
    patch.setattr(CLIPTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    for name in ("resnet50", "clip_vit_b16", "mae_vit_b16"):
        kind = type(backbones.load(name))
        patch.setattr(kind, "build", _on_meta(kind.build))


def _on_meta(build: Any) -> Any:
    def built(*args: Any, **named: Any) -> torch.nn.Module:
        with torch.device("meta"):
            return build(*args, **named)

    return built
