"""Time and accuracy of a sweep through Ray Tune, compared with the same trainings in plain loops of our own.

    python benchmarks/classify.py --out FOLDER [--backbone resnet_mini --epochs 10 --threads 1 2 --precisions float32]

On skyworld, 5 shots, BOB's drawn images, 16 configurations. Ours: `bob.cluster`, one process per core, pictures decoded
once. Theirs: one training after another with `--threads` torch threads, reading PNG files at every step, as a data
loader without a cache does: each in its own process, as DataDream's script starts its own, and also all in one process.
All call the same `trainer.train` with the same seeds. Prints as Markdown the times, the differences of the accuracies
(also to another seed's), and a profile of one training.
"""

import argparse
import cProfile
import dataclasses
import io
import itertools
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import plain_training
import ray
import torch
from plain_training import best, training

from bob import cluster, pipeline
from bob.cluster import session
from bob.commands import console
from bob.core.settings import Run
from bob.pipeline import walk
from bob.steps import workers
from bob.steps.classify import ClassifyWorker
from bob.steps.defaults import defaults
from bob.store import Store

PARTS = {
    "decoding and preparing pictures": ("__getitem__", "prepare"),
    "augmentation": ("augment",),
    "forward": ("_forward",),
    "backward": ("backward",),
    "optimiser": ("step",),
    "evaluation": ("logits",),
}
"""Line of the profile -> functions whose cumulative time it shows."""


def swept(run: Run, artefacts: Store) -> list:
    """The sweep's units, after all earlier steps have run in this process."""
    inline, report = workers.inline("cpu"), console.report
    pipeline.execute([run], artefacts=artefacts, executor=inline, report=report, upto="generate")
    steps = walk.walk([pipeline.split(run, artefacts)], artefacts)
    (units,) = (units for step, units in steps if step == "sweep")
    return units


def ours(units: list, artefacts: Store) -> tuple[float, float, list[float]]:
    """Seconds of Ray's start and of the sweep; each configuration's best validation accuracy."""
    for unit in units:
        artefacts.delete(unit.target)
    os.environ["BOB_CACHE"] = tempfile.mkdtemp()  # nothing decoded yet
    start = time.monotonic()
    session.start()
    ready = time.monotonic()
    for _ in cluster.execute("classify", units, artefacts):
        pass
    taken = time.monotonic() - ready
    ray.shutdown()  # its idle processes would share the cores with theirs
    reached = []
    for unit in units:
        rows = artefacts.read_table(unit.target).to_pylist()
        reached.append(100 * max(r["value"] for r in rows if (r["split"], r["metric"]) == ("val", "accuracy")))
    return ready - start, taken, reached


def theirs(folder: Path, count: int, *, seed: int, threads: int) -> tuple[float, list[float]]:
    """Seconds of `count` configurations in this process, and each one's best validation accuracy."""
    torch.set_num_threads(threads)
    start = time.monotonic()
    reached = [best(training(folder, k, seed=seed)) for k in range(count)]
    return time.monotonic() - start, reached


def scripts(folder: Path, count: int, *, seed: int, threads: int) -> tuple[float, list[float]]:
    """The same, each configuration in its own process."""
    start, reached = time.monotonic(), []
    for k in range(count):
        command = [sys.executable, plain_training.__file__, str(folder), str(k), str(seed), str(threads)]
        reached.append(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    return time.monotonic() - start, reached


def measured(sweeps: dict[str, list], folder: Path, artefacts: Store, given: Any) -> dict[str, list[float]]:
    """Prints a row of seconds per variant; returns accuracies: ours by precision, theirs by threads."""
    print("| load | who | seconds | theirs / ours | with Ray's start |")
    print("|---|---|---|---|---|", flush=True)
    reached: dict[str, list[float]] = {}
    for _ in range(given.repetitions):
        times = {}
        for name, units in sweeps.items():
            load = os.getloadavg()[0]
            start, mine, reached[name] = ours(units, artefacts)
            times[name] = mine, mine + start
            print(f"| {load:.1f} | ours, {name} | {mine:.1f} | | {start:.1f} s |", flush=True)
        ways = {"a process each": scripts, "all in one process": theirs}
        for threads, (who, way) in itertools.product(given.threads, ways.items()):
            load = os.getloadavg()[0]
            other, reached[str(threads)] = way(folder, len(units), seed=0, threads=threads)
            ratios = [", ".join(f"{other / both[k]:.2f} {name}" for name, both in times.items()) for k in (0, 1)]
            print(f"| {load:.1f} | theirs, {who}, {threads} threads | {other:.1f} | {' | '.join(ratios)} |", flush=True)
    return reached


def profile(folder: Path) -> list[str]:
    """Table rows of one training's profile; parts are nested, so they do not add up."""
    watch = cProfile.Profile()
    watch.enable()
    training(folder, 0, seed=0)
    watch.disable()
    stats: Any = pstats.Stats(watch, stream=io.StringIO())
    whole, lines = stats.total_tt, []
    for part, names in PARTS.items():
        seconds = max(entry[3] for (file, _, name), entry in stats.stats.items() if name in names and _is_part(file))
        lines.append(f"| {part} | {seconds:.1f} s | {100 * seconds / whole:.0f} % |")
    return [f"| all | {whole:.1f} s | |", *lines]


def _is_part(file: str) -> bool:
    return any(place in file for place in ("/bob/", "benchmarks", "/torch/optim/", "/torch/_tensor"))


def main() -> None:
    """Measures both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for drawn images and PNG files")
    parser.add_argument("--backbone", default="resnet_mini")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1], help="of torch, for theirs")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], help="precisions of ours")
    for name, default in (("epochs", 10), ("repetitions", 2), ("finetune-epochs", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    base = defaults(checkpoint="skyworld", backbone=given.backbone, captioner="qwen_vl:skyworld")
    lrs, decays = (3e-4, 1e-3, 3e-3, 1e-2), (1e-2, 1e-4)
    sweep = dataclasses.replace(base.sweep, lrs=lrs, weight_decays=decays, sweep_epochs=given.epochs)
    run = dataclasses.replace(
        base, sweep=sweep, finetune=dataclasses.replace(base.finetune, epochs=given.finetune_epochs)
    )
    artefacts = Store(str(given.out))
    sweeps = {
        name: swept(dataclasses.replace(run, sweep=dataclasses.replace(sweep, precision=name)), artefacts)
        for name in given.precisions
    }
    first = next(iter(sweeps.values()))
    points = [unit.work.point for unit in first]
    data, folder = ClassifyWorker(artefacts.root, device="cpu")._data(first[0].work), given.out / "png"
    plain_training.written(folder, data, run.backbone, points, sweep)
    print(
        f"\n{len(points)} configurations of {given.backbone}, {given.epochs} epochs of {len(data.synthetic)} drawn and"
        f" {len(data.real)} x {data.copies} real pictures, {os.cpu_count()} cores\n"
    )
    reached = measured(sweeps, folder, artefacts, given)
    baseline = reached.pop(str(given.threads[0]))
    reached["another seed, the first 4"] = theirs(folder, 4, seed=1, threads=given.threads[0])[1]
    print(
        f"\nBest validation accuracies beside theirs with {given.threads[0]} threads, points apart on average (signed)"
    )
    print("and at most:\n")
    for name, accuracies in reached.items():
        apart = [a - b for a, b in zip(accuracies, baseline, strict=False)]
        size = [abs(points) for points in apart]
        print(f"- {name}: {statistics.fmean(size):.2f} ({statistics.fmean(apart):+.2f}) and {max(size):.2f}")
    print()
    print("| one training of theirs | time | share |\n|---|---|---|")
    print("\n".join(profile(folder)))


if __name__ == "__main__":
    main()
