"""Table of the steps: versions, titles, and what the sizes of their units count."""

from dataclasses import dataclass

__all__ = ["LAST", "PLANNED", "STEPS", "Planned", "Step"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step with workers of its own."""

    version: int
    """Version of the step's output, part of its keys. Raised by hand when the same inputs give another output, not
    by a refactoring."""
    heading: str
    """Heading of the step's progress lines."""
    counts: str
    """What the size of a unit counts, in progress lines."""
    effort: str = ""
    """Unit of the step's cost, for pictures of the model's own size; empty: the cost is not planned."""


STEPS = {
    "caption": Step(version=2, heading="step 1, captions", counts="shots", effort="pictures"),
    "finetune": Step(version=2, heading="step 2, fine-tunes", counts="optimiser steps", effort="pictures x steps"),
    "generate": Step(version=1, heading="step 3, images", counts="images", effort="evaluations of the U-Net"),
    "embed": Step(version=1, heading="features", counts="images"),
    "recognise": Step(version=1, heading="captioners as classifiers", counts="images"),
    "classify": Step(
        version=1, heading="step 4, classifiers", counts="epochs", effort="pictures x epochs, in ResNet-50's time"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step as plans, `bob plan` and `bob status` list it: sweep and final trainings separately."""

    step: str
    """Name of the step in `STEPS`."""
    title: str
    """Plural name of the units."""
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
"""Planned steps, in the order of the pipeline."""

LAST = "final"
"""Last planned step of every run whose plans note no other; a command without its plan has not come that far."""
