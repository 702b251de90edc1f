"""A run so small that a test can do all of it, on pictures of three classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from bob.core.settings import DrawSettings, FinetuneSettings, Run, SweepSettings

CLASSES = ("Egret", "Heron", "Teal")
FINETUNE = FinetuneSettings(epochs=2, batch=3, warmup_steps=1, rank=2, checkpoint_every=1)
DRAW = DrawSettings(per_class=4, steps=2, batch=3, unit=5)
SWEEP = SweepSettings(
    lrs=(1e-3, 1e-4), weight_decays=(0.0,), lambdas=(0.5,), sweep_epochs=1, final_epochs=2, warmup_epochs=0.0, batch=12
)


def photos(root: Path) -> str:
    """A data set of seven pictures a class; class k is brightest in channel k."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (root / name).mkdir()
        for n in range(7):
            pixels = rng.integers(0, 150, (40, 40 + n, 3))
            pixels[..., k] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{n}.png")
    return f"folder:{root}"


def run(dataset: str, checkpoint: Path) -> Run:
    """DataDream on two shots, with an untrained Stable Diffusion."""
    return Run(
        dataset=dataset,
        method="datadream",
        descriptor="bird",
        shots=2,
        val=2,
        checkpoint=f"path:{checkpoint}",
        backbone="resnet_mini",
        finetune=FINETUNE,
        draw=DRAW,
        sweep=SWEEP,
    )
