"""Twins of the paper's runs on skyworld: the same settings with mini models, and with tiny budgets."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from bob.core.settings import Run
from bob.steps.defaults import defaults

__all__ = ["MINIS", "at_epoch", "mini", "on_skyworld", "tiny"]

MINIS = {"clip_vit_b16": "clip_mini", "resnet50": "resnet_mini", "mae_vit_b16": "mae_mini"}
"""Downstream model of the paper, in the paper's order -> the mini model of skyworld."""


def mini(method: str, backbone: str = "resnet_mini", **fields: Any) -> Run:
    """Returns a run on skyworld with mini models; `fields` are fields of `Run`."""
    models = {"checkpoint": "skyworld", "backbone": backbone, "captioner": "qwen_vl:skyworld"}
    return dataclasses.replace(defaults(**models, method=method), **fields)


def tiny(run: Run) -> Run:
    """Returns a run on skyworld with budgets so small that its accuracy means nothing."""
    keep = tuple(range(1, 1 + len(run.finetune.keep)))
    finetune = dataclasses.replace(run.finetune, epochs=2 + len(keep), total_steps=0, warmup_steps=1, keep=keep)
    return dataclasses.replace(
        run,
        finetune=finetune,
        after=dict(zip(run.finetune.keep, keep, strict=True)).get(run.after, 0),
        draw=dataclasses.replace(run.draw, per_class=2, steps=3, unit=10),
        sweep=dataclasses.replace(run.sweep, lrs=run.sweep.lrs[:1], sweep_epochs=1, final_epochs=2),
    )


def at_epoch(run: Run, epoch: int, checkpoints: Sequence[int]) -> Run:
    """Returns a run with the adapter after `epoch` epochs, one of the ascending `checkpoints`; the last is the end."""
    *keep, last = checkpoints
    finetune = dataclasses.replace(run.finetune, epochs=last, keep=tuple(keep))
    return dataclasses.replace(run, finetune=finetune, after=epoch if epoch != last else 0)


def on_skyworld(run: Run) -> Run:
    """Returns the twin of a run of the paper: the same settings with mini models on skyworld, or on its long tail."""
    _, _, factor = run.dataset.partition(":")
    captioner = "qwen_vl:skyworld" if run.captioner == "qwen_vl:7b" else "blind"
    twin = mini(run.method, MINIS[run.backbone], shots=run.shots, seed=run.seed, captioner=captioner)
    twin = dataclasses.replace(twin, dataset=f"skyworld_lt:{factor}" if factor else twin.dataset)
    if not run.finetune.keep:
        return twin
    last = run.finetune.epochs
    epochs = [epoch * twin.finetune.epochs // last for epoch in (*run.finetune.keep, last)]
    return at_epoch(twin, (run.after or last) * epochs[-1] // last, epochs)
