"""One step of each stage at full size, through the project's own code, on the meta device or a pretended GPU."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.counting.meter import Meter, picture
from benchmarks.counting.narrow_qwen import PICTURES, caption
from benchmarks.counting.others import no_weights
from bob import backbones
from bob.classifier.data import Data
from bob.classifier.trainer import Trainer, Training
from bob.core import memory
from bob.core.settings import FinetuneSettings, Point
from bob.core.types import Request, Tuning
from bob.diffusion import sampling, training
from tests.devices import full_size

__all__ = ["CLASSES", "STAGES", "Stage", "micro_batch"]

CLASSES = 200
"""Of CUB, the most of Table 1's data sets: prompts of CLIP, rows of a head."""
BATCH, EVALUATED, DRAWN, WRITTEN = 64, 256, 10, 10
"""Images of a training step, of an evaluation and of a drawn batch."""
_FINETUNED = 80
LoRA = Tuning()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the pipeline with one model."""

    name: str
    images: int
    """Of a step."""
    precision: str
    """Of its matrix products: a key of `memory.Card.peaks`."""
    run: Callable[[Meter, int], None]
    """Runs so many steps after the set-up or the first step, and ticks after all."""
    repeats: int = 4
    """Steps whose host work is timed; the least counts."""
    counted: Sequence[tuple[int, Callable[[Meter, int], None]]] = ()
    """Shorter runs whose counts, weighted and added, are the step's; empty: those of `run`."""
    narrow: bool = False
    """Whether it computes real numbers with a narrow model on the CPU, in place of meta tensors at full size."""


def micro_batch(checkpoint: str) -> int:
    """Images of a LoRA step's micro-batch on an H100, by the memory model, in float32."""
    footprint = memory.finetune(checkpoint, Tuning(), FinetuneSettings())
    assert footprint is not None
    free = memory.CARDS["H100"].bytes
    return memory.micro_batch(footprint, free=free, batch=_FINETUNED, precision="float32").images


def _finetune(checkpoint: str) -> Callable[[Meter, int], None]:
    """A LoRA step on photographs that are not square, each with a prompt of its own."""

    def run(meter: Meter, steps: int) -> None:
        pipeline: Any = full_size.pipeline(checkpoint, torch.float32, meter.device)
        prompts = [f"a aircraft photo of a Boeing {k} in the blue sky with the level left pose" for k in range(80)]
        pairs = training.Pairs([picture(k) for k in range(_FINETUNED)], prompts)
        settings = FinetuneSettings(total_steps=steps + 1, micro_batch=micro_batch(checkpoint))
        meter.activity("VAE", pipeline.vae, "encode")
        meter.activity("text encoder", pipeline.text_encoder, "forward")
        meter.activity("U-Net", pipeline.unet, "forward")
        meter.activity("clipping", torch.nn.utils, "clip_grad_norm_")
        meter.trains()
        training.train(pipeline, pairs, settings=settings, seed=0, callbacks=_SILENT)

    return run


_SILENT = training.Callbacks(tell=lambda _: None)


def _draw(checkpoint: str, sampler_steps: int = 50) -> Callable[[Meter, int], None]:
    """A batch drawn from noise, to PIL pictures."""

    def run(meter: Meter, steps: int) -> None:
        pipeline: Any = full_size.pipeline(checkpoint, torch.float16, meter.device)
        pipeline.unet.to(memory_format=torch.channels_last)
        fixed = {"class_id": 0, "steps": sampler_steps, "prompt": "a aircraft photo of a Boeing in the blue sky"}
        requests = [Request(request_id=f"0-{k}", index=k, seed=k, **fixed) for k in range(DRAWN)]
        meter.activity("text encoder", pipeline.text_encoder, "forward")
        meter.activity("U-Net", pipeline.unet, "forward")
        meter.activity("VAE", pipeline.vae, "decode")
        meter.activity("sampler", type(pipeline.scheduler), "step")
        meter.tick()
        for _ in range(steps):
            sampling.draw(pipeline, requests, sampling.Sources(pipeline))
            meter.tick()

    return run


def _trainer(name: str, device: str, steps: int) -> Trainer:
    """A training of so many steps an epoch, half of the images real."""
    backbone, rng = backbones.load(name), np.random.default_rng(0)
    count = BATCH // 2 * steps
    labels = np.arange(count) % CLASSES

    def noise(images: int) -> np.ndarray:
        return rng.integers(0, 256, (images, backbone.kept, backbone.kept, 3), dtype=np.uint8)

    data = Data(
        class_names=tuple(f"class {k}" for k in range(CLASSES)),
        descriptor="aircraft",
        real=noise(count),
        real_labels=labels,
        val=noise(EVALUATED),
        val_labels=np.arange(EVALUATED) % CLASSES,
        synthetic=noise(count),
        synthetic_labels=np.eye(CLASSES, dtype=np.float32)[labels],
    )
    sweep = dataclasses.replace(backbone.sweep, batch=BATCH)
    if device == "meta":  # where `auto` would be float32
        sweep = dataclasses.replace(sweep, precision="bfloat16")
    point = Point(lr=1e-4, weight_decay=0.01, lam=0.5, layer_decay=sweep.layer_decays[0])
    wanted = Training(backbone=name, point=point, settings=sweep, epochs=1, seed=0)
    with no_weights():
        return Trainer(data, wanted, torch.device(device))


def _train(name: str) -> Callable[[Meter, int], None]:
    def run(meter: Meter, steps: int) -> None:
        trainer = _trainer(name, meter.device, steps + 1)
        meter.activity("augmentation", type(trainer.backbone), "augment")
        meter.activity("model", trainer.model, "forward")
        meter.trains()
        trainer.run_epoch(1)

    return run


def _evaluate(name: str) -> Callable[[Meter, int], None]:
    def run(meter: Meter, steps: int) -> None:
        trainer = _trainer(name, meter.device, 1)
        meter.activity("view", type(trainer.backbone), "view")
        meter.activity("model", trainer.model, "forward")
        meter.tick()
        for _ in range(steps):
            trainer.logits(trainer.data.val)
            meter.tick()

    return run


STAGES = (
    *(
        Stage(name=f"finetune {name}", images=_FINETUNED, precision="float32", run=_finetune(name), repeats=1)
        for name in ("sd15", "sd21")
    ),
    *(
        Stage(
            name=f"draw {name}",
            images=DRAWN,
            precision="float16",
            run=_draw(name),
            repeats=1,
            counted=[(-23, _draw(name, 2)), (24, _draw(name, 4))],  # linear in the steps: at 50, as many as these
        )
        for name in ("sd15", "sd21")
    ),
    *(
        Stage(name=f"{what} {name}", images=images, precision="bfloat16", run=do(name))
        for name in ("resnet50", "mae_vit_b16", "clip_vit_b16")
        for what, do, images in (("train", _train, BATCH), ("evaluate", _evaluate, EVALUATED))
    ),
    Stage(name="caption qwen_vl:7b", images=PICTURES, precision="bfloat16", run=caption, repeats=1, narrow=True),
)
