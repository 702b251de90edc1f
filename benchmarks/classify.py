"""A sweep of 16 configurations through Ray Tune, beside the same trainings as DataDream's scripts would run them.

    python benchmarks/classify.py --out FOLDER [--backbone resnet_mini --epochs 10 --threads 1 2 --precisions float32]

On skyworld, 5 shots, BOB's drawn images. Ours: `bob.cluster`, one process a core, pictures decoded once. Theirs: one
training after another, with so many of torch's threads, reading its pictures from PNG files at every step, as a data
loader without a cache does. Both call the same `classify.train` with the same seeds. Prints the times, how far the
accuracies are apart beside what another seed does, and where the time of one training goes, as Markdown.
"""

import argparse
import cProfile
import dataclasses
import io
import os
import pstats
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image

from bob import backbones, classify, cluster, experiments, pipeline, pixels, progress, units, workers
from bob.classify_worker import ClassifyWorker
from bob.cluster import session
from bob.settings import Point, Run
from bob.store import Store

PARTS = {
    "decoding and preparing pictures": ("__getitem__", "prepare"),
    "augmentation": ("augment",),
    "forward": ("_forward",),
    "backward": ("backward",),
    "optimiser": ("step",),
    "evaluation": ("logits",),
}
"""What a line of the profile stands for -> functions whose time, with all below them, it is."""


class Pngs:
    """Pictures that are read from their files whenever they are asked for; in all else a uint8 array of them."""

    def __init__(self, files: list[Path], backbone: backbones.Backbone) -> None:
        self.files, self.backbone = files, backbone

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> np.ndarray:
        made = []
        for row in rows:
            with Image.open(self.files[row]) as picture:
                made.append(self.backbone.prepare(picture))
        return np.stack(made) if made else np.zeros((0, self.backbone.kept, self.backbone.kept, 3), np.uint8)


def swept(run: Run, artefacts: Store) -> list:
    """The sweep's units, after doing all that comes before them, in this process."""
    cell = pipeline.split(run, artefacts)
    inline = workers.inline("cpu")
    report: Any = progress.report
    pipeline._do("caption", units.captions(cell), runs=[run], artefacts=artefacts, executor=inline, report=report)
    pipeline.read_captions([cell], artefacts)
    pipeline._do("finetune", units.finetune(cell), runs=[run], artefacts=artefacts, executor=inline, report=report)
    drawn = units.generations(cell, artefacts)
    pipeline._do("generate", drawn, runs=[run], artefacts=artefacts, executor=inline, report=report)
    return list(units.sweep(cell))


def png_data(unit: Any, run: Run, artefacts: Store, folder: Path) -> pixels.Data:
    """The run's data with its training and validation pictures as files below `folder`."""
    held = ClassifyWorker(artefacts.root, device="cpu")._data(unit.work, run)
    backbone, made = backbones.load(run.backbone), {}
    for name in ("real", "val", "synthetic"):
        files = [folder / name / f"{k:05d}.png" for k in range(len(getattr(held, name)))]
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, picture in zip(files, getattr(held, name), strict=True):
            Image.fromarray(picture).save(file)
        made[name] = Pngs(files, backbone)
    return dataclasses.replace(held, **made)


def best(rows: list[dict[str, Any]]) -> float:
    """Per cent."""
    return 100 * max(row["val_accuracy"] for row in rows)


def ours(found: list, artefacts: Store) -> tuple[float, float, list[float]]:
    """Seconds until Ray is there, and of the sweep; each configuration's best validation accuracy."""
    for unit in found:
        artefacts.delete(unit.target)
    os.environ["BOB_CACHE"] = tempfile.mkdtemp()  # nothing decoded yet
    start = time.monotonic()
    session.start()
    ready = time.monotonic()
    for _ in cluster.execute("classify", found, artefacts):
        pass
    taken = time.monotonic() - ready
    ray.shutdown()  # its idle processes would share the cores with theirs
    reached = []
    for unit in found:
        rows = artefacts.read_table(unit.target).to_pylist()
        reached.append(100 * max(r["value"] for r in rows if (r["split"], r["metric"]) == ("val", "accuracy")))
    return ready - start, taken, reached


def theirs(data: pixels.Data, run: Run, points: list[Point], *, seed: int) -> tuple[float, list[float]]:
    """Seconds, and each configuration's best validation accuracy."""
    start, reached = time.monotonic(), []
    for point in points:
        rows = classify.train(
            data, run.backbone, point, settings=run.sweep, epochs=run.sweep.sweep_epochs, seed=seed, mixup=True
        )
        reached.append(best(list(rows)))
    return time.monotonic() - start, reached


def measured(
    found: dict[str, list], data: pixels.Data, run: Run, points: list[Point], artefacts: Store, given: Any
) -> tuple[dict[str, list[float]], list[float]]:
    """Prints seconds, in turn; returns what ours reached in each precision, and theirs."""
    print("| load | who | seconds | theirs / ours | with Ray's start |")
    print("|---|---|---|---|---|", flush=True)
    reached: dict[str, list[float]] = {}
    wanted: list[float] = []
    for _ in range(given.repetitions):
        times = {}
        for name, some in found.items():
            load = os.getloadavg()[0]
            start, mine, reached[name] = ours(some, artefacts)
            times[name] = mine, mine + start
            print(f"| {load:.1f} | ours, {name} | {mine:.1f} | | {start:.1f} s |", flush=True)
        for threads in given.threads:
            torch.set_num_threads(threads)
            load = os.getloadavg()[0]
            other, wanted = theirs(data, run, points, seed=run.seed)
            ratios = [", ".join(f"{other / both[k]:.2f} {name}" for name, both in times.items()) for k in (0, 1)]
            who = f"theirs, {threads} threads"
            print(f"| {load:.1f} | {who} | {other:.1f} | {' | '.join(ratios)} |", flush=True)
    return reached, wanted


def profile(data: pixels.Data, run: Run, point: Point) -> list[str]:
    """Lines of where one training's time goes; parts lie within one another, so they do not add up."""
    watch = cProfile.Profile()
    watch.enable()
    options: dict[str, Any] = {"settings": run.sweep, "epochs": run.sweep.sweep_epochs, "seed": 0}
    list(classify.train(data, run.backbone, point, **options))
    watch.disable()
    stats: Any = pstats.Stats(watch, stream=io.StringIO())
    whole, lines = stats.total_tt, []
    for part, names in PARTS.items():
        seconds = max(held[3] for (file, _, name), held in stats.stats.items() if name in names and _is_part(file))
        lines.append(f"| {part} | {seconds:.1f} s | {100 * seconds / whole:.0f} % |")
    return [f"| all | {whole:.1f} s | |", *lines]


def _is_part(file: str) -> bool:
    return any(place in file for place in ("/bob/", "benchmarks", "/torch/optim/", "/torch/_tensor"))


def main() -> None:
    """Measures both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what is drawn, and for PNG files")
    parser.add_argument("--backbone", default="resnet_mini")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1], help="of theirs")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], help="of ours")
    for name, default in (("epochs", 10), ("repetitions", 2), ("finetune-epochs", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    base = experiments.defaults(checkpoint="skyworld", backbone=given.backbone, captioner="qwen_vl:skyworld")
    lrs, decays = (3e-4, 1e-3, 3e-3, 1e-2), (1e-2, 1e-4)
    sweep = dataclasses.replace(base.sweep, lrs=lrs, weight_decays=decays, sweep_epochs=given.epochs)
    run = dataclasses.replace(
        base, sweep=sweep, finetune=dataclasses.replace(base.finetune, epochs=given.finetune_epochs)
    )
    artefacts = Store(str(given.out))
    found = {
        name: swept(dataclasses.replace(run, sweep=dataclasses.replace(sweep, precision=name)), artefacts)
        for name in given.precisions
    }
    first = next(iter(found.values()))
    points = [Point(**unit.work["point"]) for unit in first]
    data = png_data(first[0], run, artefacts, given.out / "png")
    print(
        f"\n{len(points)} configurations of {given.backbone}, {given.epochs} epochs of {len(data.synthetic)} drawn and"
        f" {len(data.real)} x {data.copies} real pictures, {os.cpu_count()} cores\n"
    )
    reached, wanted = measured(found, data, run, points, artefacts, given)
    torch.set_num_threads(1)
    _, again = theirs(data, run, points[:4], seed=1)
    print("\nBest validation accuracies, points apart from theirs on average (signed) and at most:\n")
    for name, accuracies in [*reached.items(), ("another seed, the first 4", again)]:
        apart = [a - b for a, b in zip(accuracies, wanted, strict=False)]
        size = [abs(points) for points in apart]
        print(f"- {name}: {statistics.fmean(size):.2f} ({statistics.fmean(apart):+.2f}) and {max(size):.2f}")
    print()
    print("| one training of theirs | time | share |\n|---|---|---|")
    print("\n".join(profile(data, run, points[0])))


if __name__ == "__main__":
    main()
