"""Default settings of a run: those of its T2I checkpoint, method and backbone."""

import dataclasses

from bob import backbones, methods
from bob.core.settings import Run
from bob.diffusion import checkpoints

__all__ = ["defaults"]


def defaults(*, checkpoint: str, backbone: str, captioner: str, method: str = "bob") -> Run:
    """Returns a run with the default fine-tuning, drawing and sweep of its T2I checkpoint, method and backbone."""
    known, chosen = checkpoints.settings(checkpoint), methods.load(method)
    finetune = (chosen.finetune_mini if known.mini else chosen.finetune) or known.finetune
    steps = min(chosen.steps, known.draw.steps)
    return Run(
        dataset="skyworld:0.8",
        method=method,
        checkpoint=checkpoint,
        captioner=captioner,
        backbone=backbone,
        finetune=finetune,
        draw=dataclasses.replace(known.draw, guidance=chosen.guidance, steps=steps),
        sweep=backbones.load(backbone).sweep,
    )
