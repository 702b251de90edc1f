"""Training loop of the mini models: AdamW, warm-up, cosine, moving average, checkpoints to resume from."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bob.core.seeds import derive

__all__ = ["Schedule", "train"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, learning rate, averaging and checkpoints of one training."""

    steps: int
    """Number of optimiser steps, the length of the cosine."""
    lr: float
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    warmup: int = 200
    """Number of steps of linear warm-up."""
    ema: float = 0.999
    """Decay of the moving average, ramped up from 0 as (1 + step) / (10 + step)."""
    every: int = 500
    """Number of steps between checkpoints."""

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0; it falls to a hundredth of the peak."""
        ramp = min(1.0, (step + 1) / self.warmup)
        return self.lr * ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows after `step` steps."""
        return step % self.every == 0 or step == self.steps


def train(
    name: str,
    model: Any,
    loss_of: Callable[[Any, torch.Generator], Tensor],
    schedule: Schedule,
    *,
    work: Path,
    check: Callable[[Any], str] | None = None,
) -> Any:
    """Trains `model` and returns its moving average, resuming from `work/NAME.pt` if that exists.

    Args:
        name: name of the checkpoint, and in the lines of progress.
        model: module whose parameters that require gradients are trained.
        loss_of: (model, generator) -> the loss of one batch drawn with the generator.
        schedule: length, learning rate and checkpoints.
        work: folder of the checkpoints.
        check: (averaged model) -> its quality in a few words, printed at each checkpoint.
    """
    path = work / f"{name}.pt"
    average = copy.deepcopy(model).requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay)
    generator = torch.Generator().manual_seed(derive("skyworld", "train", name))
    stateful = {"model": model, "average": average, "optimizer": optimizer}
    first = _restore(path, stateful, generator)
    start, losses = time.monotonic(), []
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        model.train()
        loss = loss_of(model, generator)
        _step(loss, optimizer, trained)
        _follow(average, model, min(schedule.ema, (1 + step) / (10 + step)))
        losses.append(float(loss.detach()))
        if schedule.saves(step + 1):
            quality = check(average.eval()) if check else ""
            pace = (time.monotonic() - start) / (step + 1 - first)
            left = pace * (schedule.steps - step - 1) / 60
            print(
                f"{name}: step {step + 1} of {schedule.steps}, loss {sum(losses) / len(losses):.4f}, {quality} "
                f"{pace:.3f} s a step, {left:.0f} min left",
                flush=True,
            )
            losses = []
            _save(path, stateful, generator, step + 1)
    return average.eval()


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, trained: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()


def _restore(path: Path, stateful: dict[str, Any], generator: torch.Generator) -> int:
    """Loads the checkpoint, if there is one; returns the number of its training steps."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(state[name])
    generator.set_state(state["generator"])
    return state["step"]


def _save(path: Path, stateful: dict[str, Any], generator: torch.Generator, step: int) -> None:
    state = {name: part.state_dict() for name, part in stateful.items()}
    torch.save({**state, "generator": generator.get_state(), "step": step}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), 0)
    for target, buffer in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(buffer)
