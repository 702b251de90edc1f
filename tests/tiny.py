"""A run small enough for a test to do all of it, on pictures of three classes."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bob import pipeline
from bob.core.settings import DrawSettings, FinetuneSettings, Run, SweepSettings
from bob.core.types import Outcome, Receipt
from bob.steps import workers
from bob.store import Store

CLASSES = ("Egret", "Heron", "Teal")
FINETUNE = FinetuneSettings(epochs=2, batch=3, warmup_steps=1, rank=2, checkpoint_every=1)
DRAW = DrawSettings(per_class=4, steps=2, batch=3, unit=5)
SWEEP = SweepSettings(
    lrs=(1e-3, 1e-4), weight_decays=(0.0,), lambdas=(0.5,), sweep_epochs=1, final_epochs=2, warmup_epochs=0.0, batch=12
)
WEIGHTS = "pytorch_lora_weights.safetensors"


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


def both(base: Run) -> list[Run]:
    """The run by DataDream and by Real Only."""
    return [base, dataclasses.replace(base, method="real_only")]


class Told:
    """Notes what was reported, in passing."""

    def __init__(self) -> None:
        self.done: list[Receipt] = []
        self.before = 0

    def __call__(self, step: str, todo: int, done: int, receipts: Iterator[Receipt]) -> Iterable[Receipt]:
        self.before += done
        for receipt in receipts:
            self.done.append(receipt)
            yield receipt

    def steps(self) -> list[str]:
        """The folders of what was made, one an artefact."""
        return [receipt.target.partition("/")[0] for receipt in self.done]


def execute(runs: list[Run], artefacts: Store, **options: Any) -> tuple[list[Outcome], Told]:
    told = Told()
    executor = workers.inline("cpu")
    return pipeline.execute(runs, artefacts=artefacts, executor=executor, report=told, **options), told


def accuracies(outcomes: list[Outcome], artefacts: Store) -> list[float]:
    tables = [artefacts.read_table(outcome.final).to_pylist() for outcome in outcomes]
    return [row["value"] for table in tables for row in table if (row["split"], row["metric"]) == ("test", "accuracy")]
