"""One training of the classifier: model, optimiser, schedule, epochs, evaluation, resuming. Plain PyTorch, no Ray.

`train` is pure: it gives the same bits for the same seed on one machine, in a for-loop and under a scheduler.
"""

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bob import backbones, store
from bob.classifier import loss
from bob.classifier.data import Arrays, Data
from bob.classifier.results import failure
from bob.core import batching, precision, training_state
from bob.core.seeds import derive
from bob.core.settings import Point, SweepSettings
from bob.core.step_table import STEPS

__all__ = ["Trainer", "Training", "train"]

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


def train(
    data: Data,
    training: Training,
    *,
    device: str = "cpu",
    state: bytes | None = None,
    save: training_state.Save | None = None,
    save_every: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Trains a classifier from the pre-trained weights; yields one row after each epoch.

    Args:
        data: all images; `data.test` is called only under `with_test`.
        training: what is trained, and how.
        device: torch's name of the device to train on.
        state: state to resume from; a damaged one, or one of another training, is reported and ignored.
        save: called with (epochs done, state) at the end of each epoch except the last.
        save_every: least number of seconds between two calls of `save`.

    Yields:
        epoch (1-based), train_loss, train_n, val_accuracy in [0, 1], val_loss, val_n; under `with_test`, in new best
        epochs only, also test_accuracy, test_n, test_class_accuracies and test_class_n. A training whose losses are
        not finite ends with a row of NaNs. A resumed one yields the rows of its earlier epochs first.

    Raises:
        ValueError: if the backbone is unknown or has no weights, or if there are no test images under `with_test`.
    """
    if training.with_test and data.test is None:
        raise ValueError("a final training wants test images, but data.test is None: give it a loader")
    trainer = Trainer(data, training, torch.device(device))
    identity = _identity(data, training, trainer.backbone)
    rows: list[dict[str, Any]] = []
    if resumed := training_state.unpack(state, identity, tell=print):
        trainer.restore(resumed["trainer"])
        rows = resumed["rows"]
    yield from rows
    test: Arrays | None = None
    saved = time.monotonic()
    for epoch in range(len(rows) + 1, training.epochs + 1):
        row = _epoch_row(trainer, epoch)
        if not math.isfinite(row["val_loss"]):
            yield row
            return
        if training.with_test and row["val_accuracy"] > max((past["val_accuracy"] for past in rows), default=-1.0):
            assert data.test is not None
            test = test or data.test()
            row |= _test_row(trainer.logits(test[0]), test[1])
        rows.append(row)
        if save is not None and epoch < training.epochs and time.monotonic() - saved >= save_every:
            save(epoch, training_state.pack(identity, {"rows": rows, "trainer": trainer.state()}))
            saved = time.monotonic()
        yield row


def _identity(data: Data, training: Training, backbone: backbones.Backbone) -> str:
    """Hash of all that a state depends on. Its arguments and their order must stay, or no saved state resumes."""
    which = (training.point, training.settings, training.epochs, training.seed, training.mixup, training.with_test)
    sizes = [data.copies, *map(len, (data.real, data.synthetic, data.val))]
    return store.key(STEPS["classify"].version, backbone.name, backbone.identity, *which, sizes)


def _epoch_row(trainer: "Trainer", epoch: int) -> dict[str, Any]:
    """Trains one epoch and evaluates it on the validation images; NaNs if a loss is not finite."""
    train_loss, count = trainer.run_epoch(epoch)
    row: dict[str, Any] = {"epoch": epoch, "train_n": count, "val_n": len(trainer.data.val)}
    if not math.isfinite(train_loss):
        return row | failure(epoch)
    accuracy, val_loss = _measure(trainer.logits(trainer.data.val), trainer.data.val_labels)
    if not math.isfinite(val_loss):  # the last step broke the weights, so the accuracy means nothing
        return row | failure(epoch)
    return row | {"train_loss": train_loss, "val_accuracy": accuracy, "val_loss": val_loss}


def _measure(logits: Tensor, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean cross-entropy in nats."""
    targets = torch.from_numpy(np.array(labels)).long()
    accuracy = (logits.argmax(1) == targets).double().mean().item()
    return accuracy, nn.functional.cross_entropy(logits, targets).item()


def _test_row(logits: Tensor, labels: np.ndarray) -> dict[str, Any]:
    """Test accuracy over all images and over those of each class, with their numbers."""
    correct = (logits.argmax(1).numpy() == labels).astype(np.float64)
    counts = np.bincount(labels, minlength=logits.shape[1])
    sums = np.bincount(labels, weights=correct, minlength=logits.shape[1])
    return {
        "test_accuracy": float(correct.mean()),
        "test_n": len(labels),
        "test_class_accuracies": (sums / np.maximum(counts, 1)).tolist(),
        "test_class_n": counts.tolist(),
    }


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
        seed = derive("classify", "epoch", self.training.seed, epoch)
        generator = torch.Generator().manual_seed(seed)
        data, batch = self.data, self.training.settings.batch
        batches = loss.batches(
            len(data.real), len(data.synthetic), copies=data.copies, batch=batch, generator=generator
        )
        total, overflowed = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        count = 0
        self.model.train()
        # Dropout knows the global generator only.
        with _seeded(seed, self.device), precision.arithmetic(self.precision, self.device):
            for real, synthetic in batches:
                self._set_learning_rate(len(batches))
                batch_loss = self._loss(real, synthetic, generator)
                self.optimizer.zero_grad()
                self.scaler.scale(batch_loss).backward()
                self.scaler.step(self.optimizer)  # fused, so it unscales and skips without the host's knowledge
                self.scaler.update()
                # Summed on the device: reading each loss would stall a GPU at every step.
                images, summand = len(real) + len(synthetic), batch_loss.detach()
                if self.scaler.is_enabled():
                    overflowed += ~torch.isfinite(summand) * images
                    summand = torch.where(torch.isfinite(summand), summand, 0)
                total += summand * images
                count += images
        total_loss, skipped = torch.stack([total, overflowed]).tolist()  # one wait for the GPU
        left = count - int(skipped)
        return total_loss / left if left else math.nan, count

    def _loss(self, real: np.ndarray, synthetic: np.ndarray, generator: torch.Generator) -> Tensor:
        """Equation 1 on one batch, given as rows of the real and of the synthetic images."""
        data, device, settings = self.data, self.device, self.training.settings
        first = len(real)
        pixels = np.concatenate([data.real[real], data.synthetic[synthetic]]) if len(synthetic) else data.real[real]
        images = self.backbone.augment(self._floats(pixels), generator)
        labels = torch.from_numpy(data.real_labels[real]).long()
        real_targets = nn.functional.one_hot(labels, len(data.class_names)).float().to(device)
        targets = torch.from_numpy(data.synthetic_labels[synthetic]).float().to(device)
        parts = [(images[:first], real_targets), (images[first:], targets)]
        parts = [(i, loss.smoothed(t, settings.label_smoothing)) for i, t in parts]
        if float(torch.rand((), generator=generator)) < settings.mix_probability:
            mix = functools.partial(loss.mix, use_mixup=self.training.mixup, alpha=settings.mixup_alpha)
            parts = [mix(i, t, generator) for i, t in parts]
        # One forward pass, so batch norm sees real and synthetic together as in DataDream.
        logits = self._forward(torch.cat([i for i, _ in parts]))
        lam = self.training.point.lam
        return loss.weighted_cross_entropy(logits[:first], parts[0][1], logits[first:], parts[1][1], lam=lam)

    def _forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> float32 logits."""
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with precision.autocast(self.precision, self.device):
            return self.model(images).float()

    def _floats(self, pixels: np.ndarray) -> Tensor:
        """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [0, 1], on the device."""
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255

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

        def forward(rows: Sequence[int]) -> Tensor:
            return self._forward(self.backbone.view(self._floats(pixels[list(rows)])))

        with precision.arithmetic(self.precision, self.device):
            return torch.cat(list(self.batcher.map(range(len(pixels)), forward, size=_EVALUATION_BATCH))).cpu()


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators; restores them on exit."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
