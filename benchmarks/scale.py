"""Scaling of generation: four measurements printed as Markdown; each row of a table runs in its own process.

    python benchmarks/scale.py throughput --workers 1 2 4 8 16 32
    python benchmarks/scale.py planning --requests 10000 100000 1000000 10000000
    python benchmarks/scale.py memory --requests 10000 100000 1000000
    python benchmarks/scale.py overhead --images 2000 --repetitions 3

throughput: `bob.cluster` on as many logical GPUs as workers, with `--checkpoint simulated:SECONDS` instead of a model,
on a long tail, whose classes differ in size. Warm: from the last worker's first unit to the start of the last unit.
planning: time and peak memory of BOB's requests -> request table -> units -> plan -> missing units -> rows for Ray.
memory: as planning, then Ray draws all images without delay (simulated:0) with 4 workers. overhead: skyworld's model
through Ray with one worker, and the same worker class in a plain loop, in turn, each timed from its first committed
shard to its last, without the start of Ray and the loading of the model.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bob import pipeline
from bob.core.settings import DrawSettings, Run
from bob.core.types import Context, Receipt, Unit
from bob.pipeline import walk
from bob.pipeline.execute import _do
from bob.steps import workers
from bob.steps.defaults import defaults
from bob.store import Store


def run_of(draw: DrawSettings, **changes: Any) -> Run:
    base = defaults(checkpoint="simulated:0", backbone="resnet_mini", captioner="qwen_vl:skyworld")
    return dataclasses.replace(base, draw=dataclasses.replace(draw, steps=base.draw.steps), **changes)


def generate(run: Run, artefacts: Store, executor: pipeline.Executor) -> list[Receipt]:
    """Runs step 3 with captions from the recipes of skyworld's shots, without fine-tuning."""
    cell, done = pipeline.split(run, artefacts), list[Receipt]()
    if cell.method.needs_captions:
        parts = {shot.image_id: shot.path.split("|") for shot in cell.training.shots}
        contexts = {name: Context(background=part[1], pose=part[2]) for name, part in parts.items()}
        cell.training = dataclasses.replace(cell.training, contexts=contexts)

    def report(step: str, todo: int, before: int, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
        for receipt in receipts:
            done.append(receipt)
            yield receipt

    units = walk.generations(cell, artefacts)
    _do("generate", units, runs=[run], artefacts=artefacts, executor=executor, report=report)
    return done


def peak() -> float:
    """Returns the peak resident memory of this process, in MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def start_ray(*, gpus: int = 0, cpus: int = 2) -> None:
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(
        "local",
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=256 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def spans(artefacts: Store, done: Sequence[Receipt]) -> list[tuple[float, float, int, str]]:
    """Returns (start, commit, images, worker) of each unit, times in Unix seconds."""
    listing = artefacts.listing()
    ends = [(listing[receipt.target].mtime_ns or 0) / 1e9 for receipt in done]
    return [(end - r.seconds, end, r.size, r.note) for end, r in zip(ends, done, strict=True)]


# -- measurements, each in its own process ------------------------------------------------------


def throughput(args: argparse.Namespace, folder: str) -> dict[str, float]:
    """Images per second of the workers, and the share of their ideal rate."""
    from bob import cluster

    count, artefacts = args.workers[0], Store(folder)
    draw = DrawSettings(unit=args.unit, batch=args.batch, per_class=count * args.each * args.unit // 10)
    run = run_of(draw, dataset="skyworld_lt:10", method="datadream", checkpoint=f"simulated:{args.seconds}")
    start_ray(gpus=count)
    started = time.time()
    done = spans(artefacts, generate(run, artefacts, cluster.execute))
    first = {worker: min(start for start, _, _, name in done if name == worker) for *_, worker in done}
    assert len(first) == count, f"{len(first)} workers, wanted {count}"
    warm, last, end = max(first.values()), max(start for start, *_ in done), max(end for _, end, *_ in done)
    at_most = count * args.batch / args.seconds

    def part(until: float) -> float:
        """Share of the images that the workers could draw from `warm` to `until`; units count pro rata."""
        images = sum(size * max(0.0, min(e, until) - max(s, warm)) / (e - s) for s, e, size, _ in done)
        return images / (until - warm) / at_most

    images = sum(size for *_, size, _ in done)
    return {
        "units": len(done),
        "images": images,
        "all at work": warm - started,
        "rate": part(last) * at_most,
        "warm": part(last),
        "to the end": part(end),
        "window": last - warm,
        "whole": images / (end - started) / at_most,
    }


def planning(args: argparse.Namespace, folder: str) -> dict[str, float]:
    """Seconds and memory of the driver's work before Ray."""
    from bob.cluster import data

    blocks = []

    def feed(step: str, todo: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        blocks.extend(data.blocks(todo))
        yield from ()

    return _driver(args, folder, feed) | {"blocks": len(blocks)}


def memory(args: argparse.Namespace, folder: str) -> dict[str, float]:
    """Seconds and memory of the driver while Ray draws."""
    from bob import cluster

    start_ray(gpus=4)
    return _driver(args, folder, cluster.execute)


def _driver(args: argparse.Namespace, folder: str, executor: pipeline.Executor) -> dict[str, float]:
    count, artefacts = args.requests[0], Store(folder)
    draw = DrawSettings(per_class=count // 10, unit=args.unit, batch=args.unit)
    run = run_of(draw)  # imports torch, for a backbone
    before = peak()
    start, used = time.monotonic(), time.process_time()
    generate(run, artefacts, executor)
    taken, busy = time.monotonic() - start, time.process_time() - used
    (table,) = Path(folder).glob("images/*/requests.parquet")
    size = table.stat().st_size / 1e6
    return {"requests": count, "seconds": taken, "cpu": busy, "before": before, "peak": peak(), "table": size}


def overhead(args: argparse.Namespace, folder: str) -> dict[str, float]:
    """Seconds and the worker's CPU seconds from the first shard to the last, through Ray or in a loop."""
    draw = DrawSettings(per_class=args.images // 10, unit=50, batch=25)
    run = run_of(draw, checkpoint="skyworld", method="datadream")
    artefacts = Store(folder)
    if args.ray:
        from bob import cluster

        start_ray(cpus=1)
        with sampled(actor_time) as samples:
            done = generate(run, artefacts, cluster.execute)
    else:
        import torch

        torch.set_num_threads(1)
        with sampled(time.process_time) as samples:
            done = generate(run, artefacts, workers.inline("cpu"))
    ends = sorted(end for _, end, *_ in spans(artefacts, done))
    times, used = np.array(samples).T
    first, last = np.interp([ends[0], ends[-1]], times, used)
    return {"seconds": ends[-1] - ends[0], "cpu": last - first, "load": os.getloadavg()[0]}


@contextlib.contextmanager
def sampled(measure: Callable[[], float]) -> Iterator[list[tuple[float, float]]]:
    """Samples of (time, value) twenty times a second; values never decrease."""
    samples: list[tuple[float, float]] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.05):
            samples.append((time.time(), max([measure(), *(value for _, value in samples[-1:])])))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def actor_time() -> float:
    """Returns the CPU seconds that the only actor has used; 0 if there is none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process().children(recursive=True):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::MapWorker"):
                return sum(process.cpu_times()[:2])
    return 0.0


CHILDREN: dict[str, Callable[[argparse.Namespace, str], dict[str, float]]] = {
    "throughput": throughput,
    "planning": planning,
    "memory": memory,
    "overhead": overhead,
}


# -- tables -------------------------------------------------------------------------------------


def alone(what: str, args: argparse.Namespace, *flags: str) -> dict[str, float]:
    """The measurement `what`, run in its own process."""
    own = [f"--{name}={getattr(args, name)}" for name in ("seconds", "unit", "batch", "each", "images")]
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        command = [sys.executable, __file__, what, "--child", folder, *own, *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(re.findall(r"^measured (.*)$", done.stdout, re.M)[-1])


def show_throughput(args: argparse.Namespace) -> None:
    print("| workers | units | images | all at work after | images/s, warm | of linear | to the last image | for |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for count in args.workers:
        m = alone("throughput", args, "--workers", str(count))
        print(
            f"| {count} | {m['units']} | {m['images']:,} | {m['all at work']:.0f} s | {m['rate']:.1f} |"
            f" {m['warm']:.3f} | {m['to the end']:.3f} | {m['window']:.0f} s |",
            flush=True,
        )


def show_driver(what: str, args: argparse.Namespace) -> None:
    print("| requests | table | seconds | of CPU time | µs a request | memory before | peak | times the first |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    least = 0.0
    for count in args.requests:
        m = alone(what, args, "--requests", str(count))
        least = least or m["peak"]
        print(
            f"| {count:,} | {m['table']:.1f} MB | {m['seconds']:.1f} | {m['cpu']:.1f} | {1e6 * m['cpu'] / count:.1f} |"
            f" {m['before']:.0f} MB | {m['peak']:.0f} MB | {m['peak'] / least:.2f} |",
            flush=True,
        )


def show_overhead(args: argparse.Namespace) -> None:
    print("| load | loop | its CPU time | through Ray | its actor's CPU time | longer by | in CPU time |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for _ in range(args.repetitions):
        loop, ray = alone("overhead", args), alone("overhead", args, "--ray")
        cells = [f"{loop['load']:.1f}, {ray['load']:.1f}"]
        for m in (loop, ray):
            cells += [f"{m['seconds']:.1f} s", f"{m['cpu']:.1f} s"]
        cells += [f"{100 * (ray[name] / loop[name] - 1):+.1f} %" for name in ("seconds", "cpu")]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Runs the chosen measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=CHILDREN, nargs="+")
    parser.add_argument("--out", help="folder for drawn images [temporary]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--requests", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of a simulated batch")
    parser.add_argument("--unit", type=int, default=0, help="images per unit [throughput 50, else 256]")
    for name, default in (("batch", 10), ("each", 12), ("images", 2_000), ("repetitions", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--ray", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for what in args.what:
        args.unit = args.unit or (50 if what == "throughput" else 256)
        if args.child:
            print("measured", json.dumps(CHILDREN[what](args, args.child)))
            return
        print(f"\n{what}, {os.cpu_count()} cores\n")
        show = {"throughput": show_throughput, "overhead": show_overhead}.get(what)
        show(args) if show else show_driver(what, args)


if __name__ == "__main__":
    main()
