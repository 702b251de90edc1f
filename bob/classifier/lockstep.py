"""Model, optimiser and schedule of one training, and an epoch of several trainings in lockstep. Plain PyTorch.

The points of a sweep see the same pictures: what prepares a batch is done once for all that are trained together.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bob import backbones
from bob.classifier import loss
from bob.classifier.batches import Batch, Batches
from bob.classifier.data import Data
from bob.classifier.pictures import Views
from bob.core import batching, precision
from bob.core.seeds import derive
from bob.core.settings import Point, SweepSettings

__all__ = ["Trainer", "Training", "run_epoch"]

_EVALUATION_BATCH = 256  # images


@dataclass(frozen=True, kw_only=True)
class Training:
    """Definition of one training: all that its numbers depend on, beside the images."""

    backbone: str
    """Name of a file of `bob/backbones/`."""
    point: Point
    """Hyper-parameters that the sweep varies."""
    settings: SweepSettings
    """All other hyper-parameters."""
    epochs: int
    """`settings.sweep_epochs` or `settings.final_epochs`; the learning-rate schedule spans them."""
    seed: int
    """The run's. Shuffles, augmentations, mixing and the head depend on it and the epoch only, so that all points of a
    sweep see the same images."""
    mixup: bool = True
    """False allows CutMix only (the Diff-Mix rows)."""
    with_test: bool = False
    """Whether to measure on the test set after each epoch that is the best on validation so far."""


class Trainer:
    """Model, optimiser and schedule of one training. Leaves torch's global random state unchanged."""

    def __init__(self, data: Data, training: Training, device: torch.device) -> None:
        self.data, self.training, self.device = data, training, device
        self.backbone = backbone = backbones.load(training.backbone)
        point, settings = training.point, training.settings
        self.precision = settings.precision
        if self.precision == "auto":
            self.precision = "bfloat16" if device.type == "cuda" else "float32"
        # Scales the loss so that small gradients are not 0 in float16; skips a step whose gradients overflow.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self.step = 0
        self.batcher = batching.AdaptiveBatcher("evaluating")
        with _seeded(derive("classify", "head", training.seed), device):
            model = backbone.build(data.class_names, descriptor=data.descriptor)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        self.peak = point.lr * (settings.batch / settings.base_batch if settings.base_batch else 1.0)
        groups = backbone.parameter_groups(self.model, weight_decay=point.weight_decay, layer_decay=point.layer_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak, fused=True)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
        self.mean, self.std = mean, std
        self.views = Views(backbone, self._normalised, device)
        self.batches = Batches(
            data=data,
            backbone=backbone,
            settings=settings,
            mixup=training.mixup,
            normalised=self._normalised,
            device=device,
        )

    def state(self) -> dict[str, Any]:
        """State after an epoch, without frozen weights: 4 MB for CLIP, whose frozen towers have 600 MB."""
        model = {name: tensor for name, tensor in self.model.state_dict().items() if name not in self.frozen}
        state = {"step": self.step, "model": model, "optimizer": self.optimizer.state_dict()}
        return state | ({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state that `state` returned."""
        self.step = state["step"]
        lacking, unknown = self.model.load_state_dict(state["model"], strict=False)
        assert not unknown, unknown
        assert set(lacking) <= self.frozen, lacking
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def run_epoch(self, epoch: int) -> tuple[float, int]:
        """Trains one epoch; returns the mean loss in nats and the number of images.

        A step that the loss scaler skips counts in the schedule of the learning rate, as in torch's examples. If the
        loss itself overflowed in float16, its images are left out of the mean, which is NaN if all are.
        """
        return run_epoch([self], epoch)[0]

    def begin(self) -> None:
        """Begins an epoch."""
        self.total, self.overflowed = (torch.zeros((), device=self.device) for _ in range(2))
        self.model.train()

    def learn(self, batch: Batch, steps_per_epoch: int) -> None:
        """One step of the optimiser. Dropout draws from torch's global generator."""
        self._set_learning_rate(steps_per_epoch)
        batch_loss = self._loss(batch)
        self.optimizer.zero_grad()
        self.scaler.scale(batch_loss).backward()
        self.scaler.step(self.optimizer)  # fused, so it unscales and skips without the host's knowledge
        self.scaler.update()
        # Summed on the device: reading each loss would stall a GPU at every step.
        images, summand = len(batch.images), batch_loss.detach()
        if self.scaler.is_enabled():
            self.overflowed += ~torch.isfinite(summand) * images
            summand = torch.where(torch.isfinite(summand), summand, 0)
        self.total += summand * images

    def end(self, count: int) -> float:
        """Mean loss of an epoch of `count` images."""
        total, skipped = torch.stack([self.total, self.overflowed]).tolist()  # one wait for the GPU
        left = count - int(skipped)
        return total / left if left else math.nan

    def _loss(self, batch: Batch) -> Tensor:
        """Equation 1 on one batch."""
        logits, first = self._forward(batch.images), len(batch.real_targets)
        lam = self.training.point.lam
        return loss.weighted_cross_entropy(
            logits[:first], batch.real_targets, logits[first:], batch.synthetic_targets, lam=lam
        )

    def _normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> the network's input."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _forward(self, images: Tensor) -> Tensor:
        """The network's input -> float32 logits."""
        with precision.autocast(self.precision, self.device):
            return self.model(images).float()

    def _set_learning_rate(self, steps_per_epoch: int) -> None:
        settings = self.training.settings
        rate = loss.learning_rate(
            self.step,
            steps=self.training.epochs * steps_per_epoch,
            warmup=round(settings.warmup_epochs * steps_per_epoch),
            start=min(self.peak, settings.warmup_lr),
            peak=self.peak,
            floor=min(self.peak, settings.min_lr),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.step += 1

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray) -> Tensor:
        """uint8 (n, kept, kept, 3) -> logits (n, classes) in evaluation mode, on the CPU."""
        self.model.eval()

        with precision.arithmetic(self.precision, self.device):
            view = self.views.of(pixels)

            def forward(rows: Sequence[int]) -> Tensor:
                return self._forward(view(slice(rows[0], rows[-1] + 1)))

            return torch.cat(list(self.batcher.map(range(len(pixels)), forward, size=_EVALUATION_BATCH))).cpu()


def run_epoch(trainers: Sequence[Trainer], epoch: int) -> list[tuple[float, int]]:
    """Trains one epoch of several trainings in lockstep, on the same batches, and with the bits of each by itself.

    Their networks are alike, so that all draw the same of torch's global generator in a step: each begins the step in
    the generator's state in which the first one did.

    Args:
        trainers: trainings that differ in their points only, each about to train this epoch.
        epoch: 1-based.

    Returns:
        For each the mean loss in nats and the number of images. See `Trainer.run_epoch`.
    """
    first, count = trainers[0], 0
    seed, device = derive("classify", "epoch", first.training.seed, epoch), first.device
    steps, batches = first.batches.epoch(seed)
    for trainer in trainers:
        trainer.begin()
    with _seeded(seed, device), precision.arithmetic(first.precision, device):
        for batch in batches:
            count += len(batch.images)
            before = _global_state(device) if len(trainers) > 1 else None
            for number, trainer in enumerate(trainers):
                if number and before is not None:
                    _set_global_state(before, device)
                trainer.learn(batch, steps)
    return [(trainer.end(count), count) for trainer in trainers]


def _global_state(device: torch.device) -> Tensor:
    """State of torch's global generator that draws on the device; a GPU's is kept by the host, which need not wait."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_global_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators; restores them on exit."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
