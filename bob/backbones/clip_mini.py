"""Mini CLIP of skyworld: 0.9 M parameters, 32 px, pre-trained on the base classes, their names and contexts.

Its weights are package data, made by `bob.skyworld.pretrain`.
"""

import importlib.resources
from pathlib import Path

from bob.backbones import _clip
from bob.core.settings import SweepSettings

__all__ = ["backbone"]

backbone = _clip.Clip(
    name="clip_mini",
    folder=str(Path(str(importlib.resources.files("bob"))) / "skyworld" / "weights" / "clip"),
    size=32,
    kept=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    cost=0.01,
    sweep=SweepSettings(lrs=(3e-3, 1e-2), weight_decays=(5e-4,), sweep_epochs=6, final_epochs=20, warmup_epochs=1.0),
)
