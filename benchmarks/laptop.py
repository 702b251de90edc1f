"""A sweep of 16 points as whole commands: `bob run` against plain loops of our own, in one shell and in two.

    python benchmarks/laptop.py --out FOLDER [--repetitions 3 --epochs 10]

On skyworld, 5 shots, BOB's drawn images, the mini ResNet. Ours: `bob run` with all steps before the classifiers done,
Ray's start and end, decoding, one final training of one epoch and the table included. Plain: `plain_training.py`, one
torch thread a process, all points in one process, and in two processes of half of them each; with PNG files read at
each step, as a data loader without a cache does, and with pictures decoded once. All call the same `trainer.train` with
the same seeds, and their best validation accuracies are compared. Each repetition runs every way once, in turn; the
times are wall-clock seconds of the commands, medians over the repetitions. Prints Markdown.
"""

import argparse
import dataclasses
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import plain_training

from bob import pipeline
from bob.core.settings import Run
from bob.core.types import Unit
from bob.pipeline import walk
from bob.steps.classify import ClassifyWorker
from bob.steps.defaults import defaults
from bob.store import Store

LRS, DECAYS = (3e-4, 1e-3, 3e-3, 1e-2), (1e-2, 1e-4)
"""With two lambdas, 16 points."""
BACKBONE = "resnet_mini"
STEPS = ("results", "tables", "plans")
"""Folders of what a repetition makes."""


def flags(epochs: int) -> list[str]:
    """Flags of the run, for `bob run`."""
    sweep = {"lrs": LRS, "weight-decays": DECAYS, "sweep-epochs": (epochs,), "final-epochs": (1,)}
    words = [word for name, values in sweep.items() for word in (f"--sweep.{name}", *map(str, values))]
    return ["--dataset", "skyworld:0.8", "--method", "bob", "--backbone", BACKBONE, "--finetune.epochs", "20", *words]


def same_run(epochs: int) -> Run:
    """The run that `flags` describe."""
    base = defaults(checkpoint="skyworld", backbone=BACKBONE, captioner="qwen_vl:skyworld")
    sweep = dataclasses.replace(base.sweep, lrs=LRS, weight_decays=DECAYS, sweep_epochs=epochs, final_epochs=1)
    return dataclasses.replace(base, finetune=dataclasses.replace(base.finetune, epochs=20), sweep=sweep)


def bob(out: Path, epochs: int, *more: str) -> None:
    """Runs the command to its end."""
    script = "import sys; from bob.cli import main; sys.exit(main(sys.argv[1:]))"
    with tempfile.TemporaryDirectory() as cache:  # nothing decoded yet
        subprocess.run(
            [sys.executable, "-c", script, "run", *flags(epochs), "--out", str(out), *more],
            env=os.environ | {"BOB_CACHE": cache},
            capture_output=True,
            check=True,
        )


def ours(out: Path, units: Sequence[Unit], epochs: int) -> list[float]:
    """Runs the sweep by `bob run`; returns each point's best validation accuracy in per cent."""
    for name in STEPS:
        shutil.rmtree(out / name, ignore_errors=True)
    bob(out, epochs)
    reached = []
    for unit in units:
        rows = Store(str(out)).read_table(unit.target).to_pylist()
        reached.append(100 * max(r["value"] for r in rows if (r["split"], r["metric"]) == ("val", "accuracy")))
    return reached


def plain(folder: Path, points: int, *, shells: int, once: bool) -> list[float]:
    """Runs as many plain loops at once, each with its part of the points; returns the same."""
    bounds = [points * k // shells for k in range(shells + 1)]
    running = [
        subprocess.Popen(
            [sys.executable, plain_training.__file__, str(folder), f"{start}:{end}", "0", "1", *["once"] * once],
            stdout=subprocess.PIPE,
            text=True,
        )
        for start, end in itertools.pairwise(bounds)
    ]
    texts = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("a plain loop failed; its message is above")
    return [float(line) for text in texts for line in text.split()]


def main() -> None:
    """Measures every way in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for drawn images and PNG files")
    for name, default in (("repetitions", 3), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    out, folder = given.out / "out", given.out / "png"
    bob(out, given.epochs, "--upto", "generate")
    artefacts = Store(str(out))
    steps = dict(walk.walk([pipeline.split(same_run(given.epochs), artefacts)], artefacts))
    units, data = steps["sweep"], ClassifyWorker(artefacts.root, device="cpu")._data(steps["sweep"][0].work)
    plain_training.written(folder, data, BACKBONE, [unit.work.point for unit in units], units[0].work.sweep)
    ways: dict[str, Callable[[], list[float]]] = {"`bob run`": lambda: ours(out, units, given.epochs)}
    for once, read in ((False, "read at each step"), (True, "decoded once")):
        for shells, name in ((1, "one plain process"), (2, "two plain processes")):
            ways[f"{name}, pictures {read}"] = lambda shells=shells, once=once: plain(
                folder, len(units), shells=shells, once=once
            )
    times: dict[str, list[float]] = {name: [] for name in ways}
    apart = 0.0
    for _ in range(given.repetitions):
        reached = list[list[float]]()
        for name, way in ways.items():
            start = time.monotonic()
            reached.append(way())
            times[name].append(time.monotonic() - start)
        pairs = [(a, b) for other in reached[1:] for a, b in zip(reached[0], other, strict=True)]
        apart = max(apart, *(abs(a - b) for a, b in pairs))
    print(f"\n{len(units)} points of {given.epochs} epochs each, {os.cpu_count()} cores\n")
    print("| way | seconds of each repetition | median | times ours |\n|---|---|---:|---:|")
    mine = statistics.median(times["`bob run`"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {name} | {', '.join(f'{s:.1f}' for s in seconds)} | {median:.1f} s | {median / mine:.2f} |")
    print(f"\nBest validation accuracies of the same points: at most {apart:.2f} points apart.")


if __name__ == "__main__":
    main()
