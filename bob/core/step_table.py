"""The table of steps: version, names for people, and what their units count."""

from dataclasses import dataclass

__all__ = ["LAST", "PLANNED", "STEPS", "Planned", "Step"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step that workers do."""

    version: int
    """Of its output's meaning, part of the key of all that it makes. Raised by hand when the same inputs would give
    another output; never for a refactoring."""
    heading: str
    """Of its lines of progress."""
    counts: str
    """What the size of a unit counts, in lines of progress."""
    effort: str = ""
    """What its work is reckoned in, on one picture of the model's own size; empty: its cost is not planned."""


STEPS = {
    "caption": Step(version=1, heading="step 1, captions", counts="shots", effort="pictures"),
    "finetune": Step(version=1, heading="step 2, fine-tunes", counts="optimiser steps", effort="pictures x steps"),
    "generate": Step(version=1, heading="step 3, images", counts="images", effort="evaluations of the U-Net"),
    "embed": Step(version=1, heading="features", counts="images"),
    "recognise": Step(version=1, heading="captioners as classifiers", counts="images"),
    "classify": Step(
        version=1, heading="step 4, classifiers", counts="epochs", effort="pictures x epochs, in ResNet-50's time"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step as plans, `bob plan` and `bob status` list it: the sweep and the final trainings apart."""

    step: str
    """The one of `STEPS` that does it."""
    title: str
    """What its units are called."""
    counts: str
    """What the size of a unit counts."""


PLANNED = {
    "caption": Planned(step="caption", title="captions", counts="shots"),
    "finetune": Planned(step="finetune", title="fine-tunes", counts="steps"),
    "generate": Planned(step="generate", title="images", counts="images"),
    "embed": Planned(step="embed", title="features", counts="images"),
    "recognise": Planned(step="recognise", title="recognised", counts="images"),
    "sweep": Planned(step="classify", title="sweeps", counts="epochs"),
    "final": Planned(step="classify", title="finals", counts="epochs"),
}
"""In the order of the pipeline."""

LAST = "final"
"""The planned step that every run comes to, unless its plans note another; a command without a plan for it is not so
far."""
