"""One training loop for all mini models: warm-up, cosine, EMA, checkpoints to resume from."""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bob.core.seeds import derive

__all__ = ["train"]


def train(
    name: str,
    model: Any,
    loss_of: Callable[[Any, torch.Generator], Tensor],
    *,
    steps: int,
    lr: float,
    work: Path,
    weight_decay: float = 0.0,
    warmup: int = 200,
    ema: float = 0.999,
    every: int = 500,
    check: Callable[[Any], str] | None = None,
) -> Any:
    """Trains `model` and returns its moving average, resuming from `work/NAME.pt` if that exists.

    Args:
        name: names the checkpoint and the lines of progress.
        model: any module; all its parameters that require gradients are trained.
        loss_of: (model, generator) -> the loss of one batch drawn with the generator.
        steps: optimiser steps; the cosine ends there.
        lr: peak learning rate of AdamW.
        work: folder of the checkpoints.
        weight_decay: AdamW's.
        warmup: steps of linear warm-up.
        ema: decay of the moving average, ramped up from 0 as (1 + step) / (10 + step).
        every: steps between checkpoints.
        check: (averaged model) -> a few words on how good it is, printed at each checkpoint.
    """
    path = work / f"{name}.pt"
    average = copy.deepcopy(model).requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(derive("skyworld", "train", name))
    stateful = {"model": model, "average": average, "optimizer": optimizer}
    first = _restore(path, stateful, generator)
    start, seen = time.monotonic(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            ramp = min(1.0, (step + 1) / warmup)
            group["lr"] = lr * ramp * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        model.train()
        loss = loss_of(model, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        _follow(average, model, min(ema, (1 + step) / (10 + step)))
        seen.append(float(loss.detach()))
        if (step + 1) % every == 0 or step + 1 == steps:
            quality = check(average.eval()) if check else ""
            rate = (time.monotonic() - start) / (step + 1 - first)
            left = rate * (steps - step - 1) / 60
            print(
                f"{name}: step {step + 1} of {steps}, loss {sum(seen) / len(seen):.4f}, {quality} "
                f"{rate:.3f} s a step, {left:.0f} min left",
                flush=True,
            )
            seen = []
            _keep(path, stateful, generator, step + 1)
    return average.eval()


def _restore(path: Path, stateful: dict[str, Any], generator: torch.Generator) -> int:
    """Puts a checkpoint back if there is one, and returns the steps that were done."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, held in stateful.items():
        held.load_state_dict(state[name])
    generator.set_state(state["generator"])
    return state["step"]


def _keep(path: Path, stateful: dict[str, Any], generator: torch.Generator, step: int) -> None:
    state = {name: held.state_dict() for name, held in stateful.items()}
    torch.save({**state, "generator": generator.get_state(), "step": step}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    slow: list[Tensor] = list(average.parameters())
    fast: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(slow, fast, 1 - decay)
    for into, buffer in zip(average.buffers(), model.buffers(), strict=True):
        into.copy_(buffer)
