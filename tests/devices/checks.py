"""What must hold for each kind of work on a pretended GPU.

Each check names the functions in which the CPU may wait for the GPU, and how often: at the ends of laps, epochs and
batches. Whatever waits elsewhere, or more often, fails it.
"""

import numpy as np
import pytest
import torch

from bob.diffusion.image_generator import ImageGenerator
from tests.devices import actions
from tests.devices.pretended_gpu import PretendedGpu

__all__ = ["BATCH", "alike", "captions", "drawing", "embedding", "finetune", "on_gpu", "scoring", "training"]

LAPS = {"Stopwatch.switch": 18}
"""Of one batch: denoise, decode and write; encode inside denoise, once a prompt and picture."""

BATCH = LAPS | {"_decoded": 2}
"""A batch's finiteness and its pixels."""


def on_gpu(generator: ImageGenerator) -> bool:
    """Whether all weights that draw lie on the GPU in float16."""
    parts = (generator._pipeline.unet, generator._pipeline.text_encoder, generator._pipeline.vae)
    held = [tensor for part in parts for tensor in part.state_dict().values() if tensor.is_floating_point()]
    return all(tensor.is_cuda and tensor.dtype == torch.float16 for tensor in held)


def drawing(gpu: PretendedGpu, wanted: np.ndarray, kind: str) -> None:
    """The CPU's pictures but for float16's rounding, without a wait in the loop over the steps."""
    generator = actions.ready("cuda")
    assert on_gpu(generator)
    gpu.waits.clear()
    rows = actions.draw(generator, **actions.KINDS[kind])
    gpu.require(BATCH | {"Sources.inverted": 1})
    alike(actions.pictures(rows), wanted)


def alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal but for what float16 rounds."""
    apart = np.abs(ours - theirs)
    assert apart.max() <= 12
    assert apart.mean() < 1


def scoring(gpu: PretendedGpu) -> None:
    """The CPU's scores, with one wait a batch and two where the texts are encoded."""
    generators = [actions.ready(device) for device in ("cpu", "cuda")]
    rows = actions.draw(generators[0])
    gpu.waits.clear()
    ours, theirs = (actions.score(generator, rows) for generator in reversed(generators))
    gpu.require({"ClipScorer._encoded": 2, "ClipScorer.scores": 1})
    assert np.allclose(ours, theirs, atol=1e-4)


def finetune(gpu: PretendedGpu, tuning: str) -> None:
    """The CPU's losses and weights, all trained weights on the GPU in float32; the losses are read once, at the end."""
    theirs, losses = actions.finetune(actions.TUNINGS[tuning], "cpu")
    gpu.waits.clear()
    ours, found = actions.finetune(actions.TUNINGS[tuning], "cuda")
    gpu.require({"_Milestones.__call__": 1})
    assert np.allclose(found, losses, rtol=1e-4)
    for part in ("unet", "text_encoder"):
        one, other = getattr(ours, part), getattr(theirs, part)
        for name, parameter in one.named_parameters():
            assert parameter.is_cuda
            assert parameter.dtype == torch.float32
            if parameter.requires_grad:
                assert torch.allclose(parameter.cpu(), other.get_parameter(name), atol=2e-4), name


def training(gpu: PretendedGpu, name: str, precision: str) -> None:
    """The CPU's losses; a wait for each epoch's loss, validation and test, none for a step: there are four an epoch."""
    fields = {"batch": 4, "precision": precision, "mixup_alpha": 0.8}
    theirs = actions.classify(name, "cpu", epochs=2, **fields)
    gpu.waits.clear()
    ours = actions.classify(name, "cuda", epochs=2, **fields)
    tested = sum("test_accuracy" in row for row in ours)
    allowed = {"Trainer.run_epoch": 2, "Trainer.logits": 2 + tested}
    gpu.require(allowed)
    for one, other in zip(ours, theirs, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)


def embedding(gpu: PretendedGpu, name: str) -> None:
    """The CPU's features, with one wait a batch."""
    theirs = actions.embed(name, "cpu")
    gpu.waits.clear()
    ours = actions.embed(name, "cuda")
    gpu.require({"Embedder._features": 1})
    assert np.allclose(ours, theirs, atol=1e-4)


def captions(gpu: PretendedGpu) -> None:
    """The CPU's captions in bfloat16. Inside a library's call the model waits at each token; we add three a picture."""
    _, captions, recognised = actions.caption("cpu")
    gpu.waits.clear()
    model, ours, found = actions.caption("cuda")
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}
    assert all(parameter.is_cuda for parameter in model.model.parameters())
    assert ours == captions
    assert [one.guess for one in found] == [one.guess for one in recognised]
    gpu.waits = [wait for wait in gpu.waits if not wait.library]
    gpu.require({"QwenVL._likeliest": 3 * len(found)})
