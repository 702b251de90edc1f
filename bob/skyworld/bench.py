"""Inputs of the mini checkpoints' evaluation: the weights, held-out renders, and the probe's predictions."""

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
    """The weights to evaluate, the probe, and the renders to evaluate on."""

    weights: Path
    """Folder of the checkpoints `sd`, `captioner`, `resnet`, `mae` and `clip`, such as `bob/skyworld/weights`."""
    probe: Path | None
    """Folder of the trained probe, which the parts `vae` and `sd` need; None: no probe."""
    work: Path
    """Folder for renders and a contact sheet of the generated pictures."""

    def base(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns held-out renders of the base classes, in the form of `renders.renders`."""
        return renders.cached(self.work, BASE_RENDERS, "evaluate")

    def novel(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns renders of the novel classes, in the form of `renders.renders`."""
        return renders.renders(NOVEL_RENDERS, purpose="evaluate novel", classes=NOVEL)

    def read(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the probe's predictions for uint8 (n, SIDE, SIDE, 3): (class, background, pose) indices, (n, 3).

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
        """Returns the path of a file or folder of the weights.

        Raises:
            ValueError: if it does not exist; names the command that makes it.
        """
        if not (self.weights / path).exists():
            raise ValueError(
                f"wanted {self.weights / path}, which does not exist: make it with"
                f" python -m bob.skyworld.pretrain --out {self.weights} --only {stage}, or leave it out by --only"
            )
        return self.weights / path
