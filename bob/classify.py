"""Step 4: real and synthetic images -> the accuracy of a downstream model (paper sec. 3.3, 4.1).

A short sweep over `SweepSettings.points`, `select` by validation accuracy, then a long training from the
pre-trained weights; its test accuracy is that of its best epoch on validation. `train` is pure: it
runs in a for-loop as under a scheduler, and gives the same bits for the same seed on one machine.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bob import backbones, memory, recipe, resume, store
from bob.backbones import Backbone
from bob.pixels import Arrays, Data, real_arrays, synthetic_arrays
from bob.seeds import derive
from bob.settings import Point, Run, SweepSettings
from bob.versions import STEPS

__all__ = ["Data", "Point", "real_arrays", "result_rows", "select", "synthetic_arrays", "train"]

_AT_ONCE = 256  # pictures of an evaluation


def train(
    data: Data,
    backbone_name: str,
    point: Point,
    *,
    settings: SweepSettings,
    epochs: int,
    seed: int,
    mixup: bool = True,
    with_test: bool = False,
    device: str = "cpu",
    state: bytes | None = None,
    save: resume.Save | None = None,
    save_every: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """Trains from the pre-trained weights; yields one row after each epoch.

    The learning-rate schedule spans `epochs`. Shuffles, augmentations, mixing and the head depend
    on `seed` and the epoch only, so the points of a sweep see the same pictures.

    Args:
        data: `data.test` is called only under `with_test`.
        backbone_name: a file of `bob/backbones/`.
        point: what the sweep varies.
        settings: the rest.
        epochs: `settings.sweep_epochs` or `settings.final_epochs`.
        seed: of the run.
        mixup: False leaves CutMix alone (the Diff-Mix rows).
        with_test: measure on the test set after each epoch that is the best on validation so far.
        device: where to train; bfloat16 autocast on a GPU, float32 on a CPU.
        state: to resume from; one that is damaged or of another training is told of and not used.
        save: called at the end of an epoch, but the last, with (epochs done, state).
        save_every: seconds that have to pass between two calls of `save`.

    Yields:
        epoch (1-based), train_loss, train_n, val_accuracy in [0, 1], val_loss, val_n; under
        `with_test` and only in new best epochs also test_accuracy, test_n, test_class_accuracies
        and test_class_n. A training whose loss is not finite ends with a row of NaNs. One that is
        resumed yields the rows of its earlier epochs first.

    Raises:
        ValueError: if the backbone is unknown or has no weights, or there is no test data to use.
    """
    if with_test and data.test is None:
        raise ValueError("a final training wants test images, but data.test is None: give it a loader")
    backbone = backbones.load(backbone_name)
    trainer = _Trainer(data, backbone, point, settings, epochs, seed, mixup, torch.device(device))
    sizes = [data.copies, *map(len, (data.real, data.synthetic, data.val))]
    identity = store.key(
        STEPS["classify"], backbone.name, backbone.revision, point, settings, epochs, seed, mixup, with_test, sizes
    )
    rows: list[dict[str, Any]] = []
    if held := resume.unpack(state, identity, tell=print):
        trainer.restore(held["trainer"])
        rows = held["rows"]
    yield from rows
    test: Arrays | None = None
    saved = time.monotonic()
    for epoch in range(len(rows) + 1, epochs + 1):
        train_loss, count = trainer.run_epoch(epoch)
        row: dict[str, Any] = {"epoch": epoch, "train_n": count, "val_n": len(data.val)}
        if not math.isfinite(train_loss):
            yield row | {"train_loss": math.nan, "val_accuracy": math.nan, "val_loss": math.nan}
            return
        accuracy, val_loss = _measure(trainer.logits(data.val), data.val_labels)
        row |= {"train_loss": train_loss, "val_accuracy": accuracy, "val_loss": val_loss}
        if with_test and accuracy > max((of["val_accuracy"] for of in rows), default=-1.0):
            assert data.test is not None
            test = test or data.test()
            row |= _test_row(trainer.logits(test[0]), test[1])
        rows.append(row)
        if save is not None and epoch < epochs and time.monotonic() - saved >= save_every:
            save(epoch, resume.pack(identity, {"rows": rows, "trainer": trainer.state()}))
            saved = time.monotonic()
        yield row


class _Trainer:
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
        self.step = 0
        self.batches = memory.Batches("evaluating")
        with _seeded(derive("classify", "head", seed), device):
            model = backbone.build(data.class_names, descriptor=data.descriptor)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        groups = backbone.parameter_groups(
            self.model, lr=point.lr, weight_decay=point.weight_decay, layer_decay=point.layer_decay
        )
        self.peaks = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
        self.mean, self.std = mean, std

    def state(self) -> dict[str, Any]:
        """All that one epoch leaves to the next."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
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
        parts = [(images[:first], real_targets), (images[first:], targets)]
        if float(torch.rand((), generator=generator)) < self.settings.mix_probability:
            parts = [recipe.mix(i, t, generator, use_mixup=self.mixup) for i, t in parts]
        # One forward pass, so batch norm sees real and synthetic together as in DataDream.
        logits = self._forward(torch.cat([i for i, _ in parts]))
        return recipe.loss(logits[:first], parts[0][1], logits[first:], parts[1][1], lam=self.point.lam)

    def _forward(self, images: Tensor) -> Tensor:
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.model(images).float()

    def _floats(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255

    def _set_learning_rate(self, steps_per_epoch: int) -> None:
        warmup = round(self.settings.warmup_epochs * steps_per_epoch)
        steps = self.epochs * steps_per_epoch
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            floor = min(peak, self.settings.min_lr)
            group["lr"] = recipe.learning_rate(self.step, steps=steps, warmup=warmup, peak=peak, floor=floor)
        self.step += 1

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray) -> Tensor:
        """uint8 (n, kept, kept, 3) -> logits (n, classes) in evaluation mode, on the CPU."""
        self.model.eval()
        view, rows = self.backbone.view, range(len(pixels))
        parts = self.batches.map(rows, lambda k: self._forward(view(self._floats(pixels[list(k)]))), size=_AT_ONCE)
        return torch.cat(list(parts)).cpu()


def select(histories: Sequence[tuple[Point, Sequence[dict[str, Any]]]]) -> Point:
    """The point with the highest validation accuracy at any of its epochs (paper sec. 4.1).

    Args:
        histories: of each of `SweepSettings.points`, in their order, the rows that `train` yielded.

    Returns:
        Of equals the one that got there at an earlier epoch, then the one earlier in the grid.

    Raises:
        ValueError: if no training of the sweep had a finite loss.
    """
    candidates = [
        (-row["val_accuracy"], row["epoch"], index)
        for index, (_, history) in enumerate(histories)
        for row in history
        if math.isfinite(row["val_accuracy"])
    ]
    if not candidates:
        raise ValueError(
            f"all {len(histories)} trainings of the sweep ended in a loss that is not finite:"
            " look at its learning rates and its images"
        )
    return histories[min(candidates)[2]][0]


def result_rows(
    history: Sequence[dict[str, Any]],
    *,
    run: Run,
    key: str,
    phase: str,
    point: Point,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Rows of schema.RESULTS of one training.

    Every epoch gives train loss, val accuracy and val loss. The test metrics are those of the best
    epoch on validation: accuracy over images, its mean over classes, its mean over those of each group, and that of
    each class.

    Args:
        history: the rows that `train` yielded.
        run: gives the coordinates.
        key: of the run.
        phase: `sweep` or `final`.
        point: what was trained with.
        groups: of a long tail, `budget.groups`.
    """
    fixed = {name: getattr(run, name) for name in ("dataset", "shots", "method", "checkpoint", "backbone", "seed")}
    fixed |= {"run": key, "phase": phase, "lr": point.lr, "weight_decay": point.weight_decay}
    fixed |= {"lambda": point.lam, "layer_decay": point.layer_decay}

    def row(of: dict[str, Any], split: str, metric: str, value: float, n: int) -> dict[str, Any]:
        return fixed | {"epoch": of["epoch"], "split": split, "metric": metric, "value": value, "n": n}

    rows = []
    for of in history:
        rows.append(row(of, "train", "loss", of["train_loss"], of["train_n"]))
        rows.append(row(of, "val", "accuracy", of["val_accuracy"], of["val_n"]))
        rows.append(row(of, "val", "loss", of["val_loss"], of["val_n"]))
    tested = [of for of in history if "test_accuracy" in of]
    if tested:
        best = tested[-1]  # `train` tests in new best epochs only
        rows.append(row(best, "test", "accuracy", best["test_accuracy"], best["test_n"]))
        pairs = list(zip(best["test_class_accuracies"], best["test_class_n"], strict=True))
        seen = [value for value, n in pairs if n]
        rows.append(row(best, "test", "accuracy_class_mean", sum(seen) / len(seen), best["test_n"]))
        for name, ids in (groups or {}).items():
            if of_group := [pairs[k] for k in ids if pairs[k][1]]:
                mean = sum(value for value, _ in of_group) / len(of_group)
                rows.append(row(best, "test", f"accuracy_{name}", mean, sum(n for _, n in of_group)))
        for class_id, (value, n) in enumerate(pairs):
            if n:
                rows.append(row(best, "test", f"class_accuracy/{class_id}", value, n))
    return rows


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators, and puts them back as they were."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _measure(logits: Tensor, labels: np.ndarray) -> tuple[float, float]:
    wanted = torch.from_numpy(np.array(labels)).long()
    accuracy = (logits.argmax(1) == wanted).double().mean().item()
    return accuracy, nn.functional.cross_entropy(logits, wanted).item()


def _test_row(logits: Tensor, labels: np.ndarray) -> dict[str, Any]:
    right = (logits.argmax(1).numpy() == labels).astype(np.float64)
    counts = np.bincount(labels, minlength=logits.shape[1])
    sums = np.bincount(labels, weights=right, minlength=logits.shape[1])
    return {
        "test_accuracy": float(right.mean()),
        "test_n": len(labels),
        "test_class_accuracies": (sums / np.maximum(counts, 1)).tolist(),
        "test_class_n": counts.tolist(),
    }
