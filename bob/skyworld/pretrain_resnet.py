"""Pre-training of the mini ResNet, and of the probe that evaluates generated pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bob.backbones import resnet_mini
from bob.skyworld import renders, training
from bob.skyworld.probe import Probe

__all__ = ["probe", "resnet"]

_HELD = 3_000


def resnet(out: Path, work: Path) -> None:
    """Trains the ResNet on families, backgrounds and poses: cross-entropy of each, flips and shifts by up to 2 pixels.

    Like ImageNet, the labels cover kinds of things and scenes but no fine-grained classes: siblings are one class. A
    network that was trained to tell all 60 classes apart knew nothing of contexts, so that a confounded training set
    did not mislead it, and 5 shots gave 73 %.
    """

    def logits(model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        return model(images).split(list(resnet_mini.HEADS), 1)

    def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        labels = _coarse(labels)
        return sum((cross_entropy(o, labels[:, k]) for k, o in enumerate(logits(model, images))), torch.zeros(()))

    def accuracies(model: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
        return _right(logits(model, images), _coarse(labels))

    model = resnet_mini.network(sum(resnet_mini.HEADS))
    model, measured = _train("resnet", model, loss_of, accuracies, steps=1_500, work=work)
    names = ("family_accuracy", "background_accuracy", "pose_accuracy")
    _save(model, out / "resnet", **dict(zip(names, measured, strict=True)))


def _coarse(labels: Tensor) -> Tensor:
    return torch.stack([labels[:, 0] // 2, labels[:, 1], labels[:, 2]], 1)  # siblings are neighbours


def probe(out: Path, work: Path) -> None:
    """Trains the probe by cross-entropy of class, background and pose; background and pose have weight 0.2."""

    def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        class_, background, pose = (cross_entropy(o, labels[:, k]) for k, o in enumerate(model(images)))
        return class_ + 0.2 * background + 0.2 * pose

    def accuracies(model: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
        return _right(model(images), labels)

    model, measured = _train("probe", Probe(), loss_of, accuracies, steps=4_000, work=work)
    names = ("class_accuracy", "background_accuracy", "pose_accuracy")
    _save(model, out / "probe", **dict(zip(names, measured, strict=True)))


def _train(
    name: str,
    model: nn.Module,
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor],
    accuracies: Callable[[nn.Module, Tensor, Tensor], list[float]],
    *,
    steps: int,
    work: Path,
    batch: int = 64,
) -> tuple[nn.Module, list[float]]:
    pixels, labels = renders.cached(work, renders.TRAIN, "train")
    held_out, held_out_labels = renders.cached(work, _HELD, "check")

    def draw(model: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pixels), (batch,), generator=generator)
        images, targets = renders.augmented(renders.as_batch(pixels, rows), torch.from_numpy(labels)[rows], generator)
        return loss_of(model, images, targets)

    @torch.inference_mode()
    def measure(model: nn.Module, count: int = _HELD) -> list[float]:
        images, truth = renders.as_batch(held_out, torch.arange(count)), torch.from_numpy(held_out_labels)[:count]
        shares = accuracies(model, images, truth)
        return [round(share, 4) for share in shares]

    def check(average: nn.Module) -> str:
        _recalibrate(average, pixels)
        return f"accuracy {measure(average, 600)},"

    model = model.to(memory_format=torch.channels_last)
    schedule = training.Schedule(steps=steps, lr=3e-3, weight_decay=0.05, ema=0.998, every=1000)
    model = training.train(name, model, draw, schedule, work=work, check=check)
    _recalibrate(model, pixels)
    measured = measure(model)
    print(f"{name}: accuracy on {_HELD} held-out renders of the base classes: {measured}", flush=True)
    return model, measured


def _right(logits: Sequence[Tensor], labels: Tensor) -> list[float]:
    return [(o.argmax(1) == labels[:, k]).double().mean().item() for k, o in enumerate(logits)]


def _recalibrate(model: nn.Module, pixels: np.ndarray) -> None:
    # The batch-norm statistics of a moving average belong to other weights.
    batches = (renders.as_batch(pixels, torch.arange(k, k + 200)) for k in range(0, 4_000, 200))
    torch.optim.swa_utils.update_bn(batches, model)
    model.eval()


def _save(model: nn.Module, folder: Path, **facts: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.to(memory_format=torch.contiguous_format)
    save_model(model, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
