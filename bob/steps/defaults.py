"""The settings that a run has unless the user says otherwise: its checkpoint's, its method's and its backbone's."""

import dataclasses

from bob import backbones, methods
from bob.core.settings import Run
from bob.diffusion import checkpoints

__all__ = ["defaults"]


def defaults(*, checkpoint: str, backbone: str, captioner: str, method: str = "bob") -> Run:
    """A run with the settings that its T2I checkpoint, method and backbone are tuned, drawn and swept with."""
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
