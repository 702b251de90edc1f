"""Memory and time of a rehearsed unit by `bob.core.memory`: what the report shows beside the measured, and what is not
worth trying."""

import math
from dataclasses import dataclass

from bob.commands.rehearse.kinds import Kind
from bob.commands.rehearse.meter import peak
from bob.core import memory
from bob.core.memory import Footprint
from bob.core.settings import FinetuneSettings
from bob.diffusion import checkpoints

__all__ = ["Prediction", "predict", "require_feasible"]

_PATIENCE = 10
"""A measurement that takes more than this many times its `--seconds` on a CPU, and more than `_ALLOWED`, is refused."""
_ALLOWED = 120.0
"""Seconds that every measurement may take."""
_ROUNDS = 3
"""Rounds that a measurement has at least."""
_EFFICIENCY = 0.5
"""Share of the peak that is assumed for the forecast."""
_CORE = 5e10
"""FLOP/s that a CPU's core has at least: if fewer are measured, other processes occupy it for the moment."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one round of a kind of work takes."""

    bytes: int
    """Peak bytes of tensors."""
    flops: float


def predict(kind: Kind, *, images: int, device: str, precision: str) -> Prediction | None:
    """Returns what the memory model says of a kind; None where it does not know the model.

    Args:
        kind: the work.
        images: images of a round.
        device: torch's name of the device.
        precision: of the arithmetic.
    """
    footprint, at_once = _footprint(kind, precision), images
    if footprint is None:
        return None
    if kind.step == "finetune":
        needed = _of_finetune(footprint, kind.unit.work.settings, device, images)
    else:
        at_once = min(images, kind.unit.work.sweep.batch) if kind.step == "classify" else images
        # Captions and images are counted in half precision.
        factor = 2 if kind.step in ("caption", "generate") and precision == "float32" else 1
        needed = factor * (footprint.bytes(at_once) - memory.RESERVED)
    evaluations = kind.work / kind.unit.size if kind.step == "generate" else 1.0
    return Prediction(bytes=needed, flops=footprint.flops * images * evaluations)


def require_feasible(prediction: Prediction, *, device: str, precision: str, seconds: float) -> None:
    """Refuses, on a CPU, what memory does not hold or what takes far longer than wanted; a GPU says so by itself.

    Raises:
        ValueError: with the numbers.
    """
    if device.startswith("cuda"):
        return
    round_ = prediction.flops / (_EFFICIENCY * max(_CORE, peak(device, precision)))
    if _ROUNDS * round_ > max(_ALLOWED, _PATIENCE * seconds):
        least = math.ceil(_ROUNDS * round_ / _PATIENCE)
        raise ValueError(
            f"one round of it takes about {round_:,.0f} s on this device: give --seconds {least} to wait for it"
        )
    free = memory.host()
    if free is not None and prediction.bytes > free:
        raise ValueError(f"it needs {prediction.bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free")


def _footprint(kind: Kind, precision: str) -> Footprint | None:
    if kind.step == "caption":
        return memory.caption(kind.model)
    if kind.step == "classify":
        return memory.classify(kind.model, classes=len(kind.cell.training.class_names), precision=precision)
    architecture = checkpoints.architecture(kind.model)
    if kind.step == "generate":
        return memory.generate(architecture)
    return memory.finetune(architecture, kind.unit.work.tuning, kind.unit.work.settings)


def _of_finetune(footprint: Footprint, settings: FinetuneSettings, device: str, images: int) -> int:
    """Bytes at the micro-batch that a free GPU takes; a CPU takes the whole batch."""
    split = memory.MicroBatch(images=images, checkpointing=False)
    if device.startswith("cuda"):
        import torch

        from bob.core import batching

        free = batching.free_memory(torch.device(device))
        split = memory.micro_batch(footprint, free=free, batch=images, precision=settings.precision)
    return footprint.bytes(split.images, checkpointing=split.checkpointing) - memory.RESERVED
