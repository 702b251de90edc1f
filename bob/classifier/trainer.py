"""One classifier on its way through a training: model, optimiser, schedule, one epoch, logits."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bob.backbones import Backbone
from bob.classifier import loss as recipe
from bob.classifier.data import Data
from bob.core import batching
from bob.core.seeds import derive
from bob.core.settings import Point, SweepSettings

__all__ = ["Trainer"]

_AT_ONCE = 256  # pictures of an evaluation


class Trainer:
    """Model, optimiser and schedule of one training. Global random state is left as it was found."""

    def __init__(
        self,
        data: Data,
        backbone: Backbone,
        point: Point,
        settings: SweepSettings,
        epochs: int,
        seed: int,
        mixup: bool,
        device: torch.device,
    ) -> None:
        self.data, self.backbone, self.point, self.settings = data, backbone, point, settings
        self.epochs, self.seed, self.mixup, self.device = epochs, seed, mixup, device
        self.lower = settings.precision == "bfloat16" or (settings.precision == "auto" and device.type == "cuda")
        self.step = 0
        self.batches = batching.Batches("evaluating")
        with _seeded(derive("classify", "head", seed), device):
            model = backbone.build(data.class_names, descriptor=data.descriptor)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        self.peak = point.lr * (settings.batch / settings.base_batch if settings.base_batch else 1.0)
        groups = backbone.parameter_groups(self.model, weight_decay=point.weight_decay, layer_decay=point.layer_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak, fused=True)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
        self.mean, self.std = mean, std

    def state(self) -> dict[str, Any]:
        """All that one epoch leaves to the next; of CLIP 4 MB, where the frozen towers have 600."""
        model = {name: held for name, held in self.model.state_dict().items() if name not in self.frozen}
        return {"step": self.step, "model": model, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        self.step = state["step"]
        lacking, unknown = self.model.load_state_dict(state["model"], strict=False)
        assert not unknown, unknown
        assert set(lacking) <= self.frozen, lacking
        self.optimizer.load_state_dict(state["optimizer"])

    def run_epoch(self, epoch: int) -> tuple[float, int]:
        """Trains one epoch; returns its mean loss and its number of images."""
        seed = derive("classify", "epoch", self.seed, epoch)
        generator = torch.Generator().manual_seed(seed)
        data, settings = self.data, self.settings
        plan = recipe.batches(
            len(data.real), len(data.synthetic), copies=data.copies, batch=settings.batch, generator=generator
        )
        total = torch.zeros((), device=self.device)
        count = 0
        self.model.train()
        with _seeded(seed, self.device):  # dropout knows the global generator only
            for real, synthetic in plan:
                self._set_learning_rate(len(plan))
                loss = self._loss(real, synthetic, generator)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                # Summed on the device: reading each loss would stall a GPU at every step.
                total += loss.detach() * (len(real) + len(synthetic))
                count += len(real) + len(synthetic)
        return float(total) / count, count

    def _loss(self, real: np.ndarray, synthetic: np.ndarray, generator: torch.Generator) -> Tensor:
        data, device = self.data, self.device
        first = len(real)
        pixels = np.concatenate([data.real[real], data.synthetic[synthetic]]) if len(synthetic) else data.real[real]
        images = self.backbone.augment(self._floats(pixels), generator)
        labels = torch.from_numpy(data.real_labels[real]).long()
        real_targets = nn.functional.one_hot(labels, len(data.class_names)).float().to(device)
        targets = torch.from_numpy(data.synthetic_labels[synthetic]).float().to(device)
        settings, parts = self.settings, [(images[:first], real_targets), (images[first:], targets)]
        parts = [(i, recipe.smoothed(t, settings.label_smoothing)) for i, t in parts]
        if float(torch.rand((), generator=generator)) < settings.mix_probability:
            mix = functools.partial(recipe.mix, use_mixup=self.mixup, alpha=settings.mixup_alpha)
            parts = [mix(i, t, generator) for i, t in parts]
        # One forward pass, so batch norm sees real and synthetic together as in DataDream.
        logits = self._forward(torch.cat([i for i, _ in parts]))
        return recipe.loss(logits[:first], parts[0][1], logits[first:], parts[1][1], lam=self.point.lam)

    def _forward(self, images: Tensor) -> Tensor:
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.lower):
            return self.model(images).float()

    def _floats(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255

    def _set_learning_rate(self, steps_per_epoch: int) -> None:
        settings = self.settings
        rate = recipe.learning_rate(
            self.step,
            steps=self.epochs * steps_per_epoch,
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
        view, rows = self.backbone.view, range(len(pixels))
        parts = self.batches.map(rows, lambda k: self._forward(view(self._floats(pixels[list(k)]))), size=_AT_ONCE)
        return torch.cat(list(parts)).cpu()


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators, and puts them back as they were."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
