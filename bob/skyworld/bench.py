"""Inputs of the evaluation of the mini checkpoints: the weights, held-out renders, and the probe's predictions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bob.datasets._skyworld import NOVEL
from bob.skyworld import probe, renders

__all__ = ["BASE_RENDERS", "NOVEL_RENDERS", "Bench"]

BASE_RENDERS = 1_200
NOVEL_RENDERS = 600


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The weights to evaluate, the probe, and the pictures to evaluate on."""

    weights: Path
    """As `bob/skyworld/weights`: `sd`, `captioner`, `resnet`, `mae`, `clip`."""
    probe: Path | None
    """Folder of the trained probe; the parts `vae` and `sd` need it."""
    work: Path
    """Folder that keeps renders, and a contact sheet of the generated pictures."""

    def base(self) -> tuple[np.ndarray, np.ndarray]:
        """Held-out renders of the base classes, as `renders.renders` gives them."""
        return renders.cached(self.work, BASE_RENDERS, "evaluate")

    def novel(self) -> tuple[np.ndarray, np.ndarray]:
        """Renders of the novel classes, likewise."""
        return renders.renders(NOVEL_RENDERS, purpose="evaluate novel", classes=NOVEL)

    def read(self, pixels: np.ndarray) -> np.ndarray:
        """Predictions of the probe for uint8 (n, SIDE, SIDE, 3): (class, background, pose) indices, (n, 3).

        Raises:
            ValueError: if there is no probe; says what to do.
        """
        if self.probe is None:
            raise ValueError("wanted the folder of the trained probe to read pictures with: give --probe FOLDER")
        if not len(pixels):
            return np.zeros((0, 3), int)
        network = probe.load(self.probe)
        with torch.inference_mode():
            parts = [network(renders.as_batch(pixels, rows)) for rows in torch.arange(len(pixels)).split(200)]
        return torch.cat([torch.stack([o.argmax(1) for o in part], 1) for part in parts]).numpy()

    def weight(self, path: str, stage: str) -> Path:
        """A file or folder of the weights.

        Raises:
            ValueError: if it is not there; says what makes it.
        """
        if not (self.weights / path).exists():
            raise ValueError(
                f"wanted {self.weights / path}, which does not exist: make it with"
                f" python -m bob.skyworld.pretrain --out {self.weights} --only {stage}, or leave it out by --only"
            )
        return self.weights / path
