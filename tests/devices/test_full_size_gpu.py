"""The paper's models at full size on a GPU without numbers: devices, dtypes, shapes and waits of real steps."""

import pytest
import torch

from bob.core.types import Tuning
from bob.diffusion import circle, micro_batches, sampling, training
from tests.devices import actions, checks, full_size

slow = pytest.mark.slow


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
def test_a_step_of_a_finetune(numberless_gpu, monkeypatch, name, tuning, side, card):
    """On cards of so many GB: where the batch does not fit, in micro-batches or with gradient checkpointing."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(0.95e9 * card), int(1e9 * card)))
    monkeypatch.setattr(micro_batches, "_known", {})
    pipeline = full_size.pipeline(name, torch.float32)
    seen = full_size.Seen(pipeline.unet)
    given = actions.TUNINGS[tuning]
    shown = Tuning(**vars(given) | {"side": side, "each": 80})  # the batch of 80, of three images
    actions.finetune(shown, pipeline=pipeline, steps=1, batch=80)
    numberless_gpu.require({"_Milestones.__call__": 1})
    assert seen.images == 80
    assert seen.shapes == {((4, side // 8, side // 8), (77, full_size.WIDTH[name]))}
    assert seen.dtypes == {torch.float32}
    trained = training.lora.parameters(pipeline.unet, pipeline.text_encoder)
    assert all(parameter.is_cuda and parameter.dtype == torch.float32 for parameter in trained.values())
    assert all(parameter.grad.shape == parameter.shape for parameter in trained.values())


def test_on_a_small_card_a_finetune_is_checkpointed_or_refused_with_the_numbers(numberless_gpu, monkeypatch, capsys):
    monkeypatch.setattr(micro_batches, "_known", {})
    pipeline = full_size.pipeline("sd15", torch.float32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(7e9), int(7.4e9)))
    with pytest.raises(ValueError, match=r"does not fit on this GPU: one image needs 6\.\d GB, .* 6\.3 GB may be used"):
        actions.finetune(Tuning(), pipeline=pipeline, steps=1)
    pipeline = full_size.pipeline("sd15", torch.float32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (int(7.6e9), int(8e9)))
    actions.finetune(Tuning(), pipeline=pipeline, steps=1)
    assert "micro-batches of 1 of 2 images, with gradient checkpointing" in capsys.readouterr().out
    numberless_gpu.require({"_Milestones.__call__": 1})


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
def test_a_batch_of_images(numberless_gpu, monkeypatch, name, kind):
    monkeypatch.setattr(circle, "INVERSION", 1)
    pipeline = full_size.pipeline(name, torch.float16)
    seen = full_size.Seen(pipeline.unet)
    requests = [actions.request(k, **actions.KINDS[kind] | {"steps": 2}) for k in range(10)]
    sources = sampling.Sources(pipeline, lambda name: actions.picture(name, width=40))
    decoded: list[torch.Tensor] = []
    pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: decoded.append(args[0]))
    assert sampling.draw(pipeline, requests, sources) == [None] * 10  # zeros are read, also for what is finite
    numberless_gpu.require(checks.BATCH | {"Sources.inverted": 1})
    assert [(latents.is_cuda, latents.dtype, tuple(latents.shape)) for latents in decoded] == [
        (True, torch.float16, (images, 4, 64, 64)) for images in (8, 2)
    ]
    assert seen.shapes == {((4, 64, 64), (77, full_size.WIDTH[name]))}
    assert seen.dtypes == {torch.float16}


@pytest.mark.parametrize("name", ["resnet50", "clip_vit_b16", "mae_vit_b16"])
def test_a_step_and_an_evaluation_of_a_backbone(numberless_gpu, monkeypatch, name):
    full_size.backbones_without_weights(monkeypatch)
    trainer = actions.trainer(name, "cuda", images=32, batch=64)
    numberless_gpu.waits.clear()
    _, count = trainer.run_epoch(1)
    logits = trainer.logits(trainer.data.val)
    numberless_gpu.require({"Trainer.run_epoch": 1, "Trainer.logits": 1})
    assert count == 64
    assert logits.shape == (32, len(actions.CLASSES))
    assert logits.dtype == torch.float32
    assert all(parameter.is_cuda and parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert all(parameter.grad.shape == parameter.shape for parameter in trained)
