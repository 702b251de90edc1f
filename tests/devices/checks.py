"""What must hold for each kind of work on a pretended GPU.

Each check names the functions in which the CPU may wait for the GPU, and how often: at the ends of laps, epochs and
batches. Whatever waits elsewhere, or more often, fails it.
"""

import dataclasses

import numpy as np
import pytest
import torch

from bob import backbones
from bob.diffusion.image_generator import ImageGenerator
from bob.diffusion.training import adapter
from tests.devices import actions
from tests.devices.pretended_gpu import PretendedGpu

__all__ = [
    "BATCH",
    "alike",
    "augmentation",
    "captions",
    "drawing",
    "embedding",
    "finetune",
    "on_gpu",
    "scoring",
    "training",
]

LAPS = {"Stopwatch.switch": 18}
"""Of one batch: denoise, decode and write; encode inside denoise, once a prompt and picture."""

BATCH = LAPS | {"_decoded": 2}
"""A batch's finiteness and its pixels."""


def on_gpu(generator: ImageGenerator) -> bool:
    """Whether all weights that draw lie on the GPU in float16."""
    parts = (generator._pipeline.unet, generator._pipeline.text_encoder, generator._pipeline.vae)
    held = [tensor for part in parts for tensor in part.state_dict().values() if tensor.is_floating_point()]
    return all(tensor.is_cuda and tensor.dtype == torch.float16 for tensor in held)


def drawing(gpu: PretendedGpu, kind: str) -> None:
    """The CPU's pictures but for float16's rounding, without a wait in the loop over the steps."""
    wanted = actions.reference(actions.drawn, "cpu", kind)
    generator = actions.ready("cuda")
    assert on_gpu(generator)
    gpu.waits.clear()
    found = actions.drawn("cuda", kind)
    gpu.require(BATCH | {"Sources.inverted": 1})
    alike(found, wanted)


def alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal but for what float16 rounds."""
    apart = np.abs(ours - theirs)
    assert apart.max() <= 12
    assert apart.mean() < 1


def scoring(gpu: PretendedGpu) -> None:
    """The CPU's scores, with one wait a batch and two where the texts are encoded."""
    rows = actions.reference(actions.draw, actions.reference(actions.ready, "cpu"))
    theirs = actions.reference(_scores_of_cpu)
    gpu.waits.clear()
    ours = actions.score(actions.ready("cuda"), rows)
    gpu.require({"ClipScorer._encoded": 2, "ClipScorer.scores": 1})
    assert np.allclose(ours, theirs, atol=1e-4)


def _scores_of_cpu() -> list[float]:
    generator = actions.reference(actions.ready, "cpu")
    return actions.score(generator, actions.reference(actions.draw, generator))


def finetune(gpu: PretendedGpu, tuning: str) -> None:
    """The CPU's losses and weights, all trained weights on the GPU in float32; the losses are read once, at the end."""
    theirs, losses = actions.reference(actions.finetune, actions.TUNINGS[tuning], "cpu")
    gpu.waits.clear()
    ours, found = actions.finetune(actions.TUNINGS[tuning], "cuda")
    gpu.require({"_Milestones.__call__": 1})
    assert np.allclose(found, losses, rtol=1e-4)
    files, wanted = (adapter(pipeline, actions.TUNINGS[tuning]) for pipeline in (ours, theirs))
    assert {name: len(content) for name, content in files.items()} == {
        name: len(content) for name, content in wanted.items()
    }
    for part in ("unet", "text_encoder"):
        one, other = getattr(ours, part), getattr(theirs, part)
        for name, parameter in one.named_parameters():
            assert parameter.is_cuda
            assert parameter.dtype == torch.float32
            if parameter.requires_grad:
                assert torch.allclose(parameter.cpu(), other.get_parameter(name), atol=2e-4), name


def training(gpu: PretendedGpu, name: str, precision: str) -> None:
    """The CPU's losses; a wait for an epoch's loss, one for validation, one for test, none for its four steps."""
    fields = {"batch": 4, "precision": precision, "mixup_alpha": 0.8}
    theirs = actions.reference(actions.classify, name, "cpu", **fields)
    gpu.waits.clear()
    ours = actions.classify(name, "cuda", **fields)
    gpu.require({"Trainer.run_epoch": 1, "Trainer.logits": 2})
    for one, other in zip(ours, theirs, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)


def augmentation(gpu: PretendedGpu, name: str) -> None:
    """The CPU's pictures, without a wait; an erased box, whose noise is the device's own, has its mean here."""
    backbone = dataclasses.replace(backbones.load(name), std=(0.0, 0.0, 0.0))
    side = backbone.kept
    kept = torch.rand((16, 3, side, side), generator=torch.Generator().manual_seed(0))

    def augmented(images: torch.Tensor) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [backbone.augment(images, generator), backbone.view(images)]

    theirs, waited = augmented(kept), len(gpu.waits)
    ours = augmented(kept.to("cuda"))
    gpu.waits = gpu.waits[waited:]
    gpu.require({})
    for one, other in zip(ours, theirs, strict=True):
        assert one.is_cuda
        assert one.dtype == torch.float32
        assert (one.cpu() - other).abs().max() <= 1e-4


def embedding(gpu: PretendedGpu, name: str) -> None:
    """The CPU's features, with one wait a batch."""
    theirs = actions.reference(actions.embed, name, "cpu")
    gpu.waits.clear()
    ours = actions.embed(name, "cuda")
    gpu.require({"Embedder._features": 1})
    assert np.allclose(ours, theirs, atol=1e-4)


def captions(gpu: PretendedGpu) -> None:
    """The CPU's captions in bfloat16. Inside a library's call the model waits at each token; we add three a picture."""
    _, captions, recognised = actions.reference(actions.caption, "cpu")
    gpu.waits.clear()
    model, ours, found = actions.caption("cuda")
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}
    assert all(parameter.is_cuda for parameter in model.model.parameters())
    assert ours == captions
    assert [one.guess for one in found] == [one.guess for one in recognised]
    gpu.waits = [wait for wait in gpu.waits if not wait.library]
    gpu.require({"QwenVL._likeliest": 3 * len(found)})
