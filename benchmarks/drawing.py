"""Drawing with an adapter: our worker and `bob run` against a stock diffusers loop, on the same weights and prompts.

    python benchmarks/drawing.py [--images 300 --repetitions 3]

On skyworld, with BOB's prompts and one adapter. Ours is the worker that `bob` runs on each core, with one thread; it
draws 25 pictures at once and writes them into shards. Stock is what DataDream's script does: the adapter by
`load_lora_weights`, not fused, 10 pictures of a class at once, each saved as a PNG file. It runs in one process with
torch's own number of threads, in one of one thread, and, as a person with two shells does, in two of one thread with
half of the classes each. Beside them `bob run` itself, on Ray and inline, all steps before the drawing done.

Loop is from the first call of the sampler to the last file, of the slowest of the processes, which start it together;
command is the wall-clock time with imports and loading, and for `bob run` with Ray's start and end. CPU is that of the
processes; Ray's workers, which are not the command's children, are not in it. All ways take turns, in reverse order
each second repetition. Ours keep freed memory (`bob.core.malloc`), the stock loop does not, as each would run.
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bob.core.timing import Stopwatch
from bob.diffusion import checkpoints

STOCK_BATCH = 10  # pictures of one class, as in DataDream's script
CLASSES, UNITS, EPOCHS = 10, 6, 20  # units of 50 from 300 pictures, skyworld's default; epochs of the adapter
WAYS: dict[str, tuple[str, int, int]] = {
    "ours, 2 processes x 1 thread": ("ours", 2, 1),
    "ours, 1 process x 1 thread": ("ours", 1, 1),
    "stock, 2 processes x 1 thread": ("stock", 2, 1),
    "stock, 1 process x 1 thread": ("stock", 1, 1),
    "stock, 1 process, default threads": ("stock", 1, 0),
    "`bob run`, Ray": ("bob", 0, 0),
    "`bob run --inline`": ("bob", 1, 0),
}
"""Row of the table -> loop, processes, threads of each (0: torch's own number). The others are divided by the first."""


def prepared(folder: Path, images: int) -> None:
    """Makes captions, adapter and requests in this process, and writes what the loops are given."""
    from bob import pipeline
    from bob.commands import console
    from bob.pipeline import walk
    from bob.steps import workers
    from bob.steps.defaults import defaults
    from bob.store import Store

    artefacts, inline = Store(str(folder / "store")), workers.inline("cpu")
    run = defaults(checkpoint="skyworld", backbone="resnet_mini", captioner="qwen_vl:skyworld", method="bob")
    draw = dataclasses.replace(run.draw, per_class=images // CLASSES, unit=images // UNITS)
    run = dataclasses.replace(run, finetune=dataclasses.replace(run.finetune, epochs=EPOCHS), draw=draw)
    pipeline.execute([run], artefacts=artefacts, executor=inline, report=console.report, upto="finetune")
    units = dict(walk.walk([pipeline.split(run, artefacts)], artefacts, upto="generate"))["generate"]
    (folder / "units.json").write_text(json.dumps([workers.packed(unit) for unit in units]))
    (folder / "requests.json").write_text(json.dumps(artefacts.read_table(units[0].work.requests).to_pylist()))


def ours(folder: Path, part: int, parts: int, start: Callable[[], None]) -> None:
    """Every `parts`-th unit, as the worker of `bob` does it."""
    from bob.core import malloc
    from bob.steps import workers
    from bob.steps.generate_worker import GenerateWorker

    malloc.keep_freed()
    units = [workers.unpacked(text) for text in json.loads((folder / "units.json").read_text())]
    worker = GenerateWorker(str(folder / "store"), device="cpu")
    work = units[0].work
    with malloc.importing():
        worker._make_ready(work.checkpoint, Stopwatch("cpu"))
        worker._generator.use(work.checkpoint, work.adapter, lambda: worker._adapter(work.adapter))
    start()
    for unit in units[part::parts]:
        worker(unit)


def stock(folder: Path, part: int, parts: int, start: Callable[[], None]) -> None:
    """Every `parts`-th class, as DataDream's script does it."""
    import torch
    from diffusers import StableDiffusionPipeline

    requests = json.loads((folder / "requests.json").read_text())
    adapter = json.loads(json.loads((folder / "units.json").read_text())[0])["work"]["adapter"]
    options = {"safety_checker": None, "dtype": torch.float32}
    pipeline: Any = StableDiffusionPipeline.from_pretrained(checkpoints.source("skyworld")[0], **options)
    pipeline.load_lora_weights(folder / "store" / adapter, weight_name="pytorch_lora_weights.safetensors")
    pipeline.set_progress_bar_config(disable=True)
    start()
    for number in range(CLASSES)[part::parts]:
        own = [r for r in requests if r["class_id"] == number]
        for k in range(0, len(own), STOCK_BATCH):
            batch = own[k : k + STOCK_BATCH]
            prompts, negative = [r["prompt"] for r in batch], [r["negative_prompt"] for r in batch]
            shared: Any = {"guidance_scale": batch[0]["guidance"], "num_inference_steps": batch[0]["steps"]}
            shared["generator"] = [torch.Generator().manual_seed(r["seed"]) for r in batch]
            pictures = pipeline(prompts, negative_prompt=negative, **shared).images
            for request, picture in zip(batch, pictures, strict=True):
                picture.save(folder / "png" / f"{request['request_id']}.png")


def worker(given: Any) -> None:
    """Loads, says that it is ready, and on a line of the input draws; prints the seconds."""
    begun: list[float] = []

    def start() -> None:
        print("ready", flush=True)
        sys.stdin.readline()
        begun.append(time.monotonic())

    part, parts = map(int, given.part)
    {"ours": ours, "stock": stock}[given.loop](Path(given.folder), part, parts, start)
    print(time.monotonic() - begun[0], flush=True)


def loops(loop: str, folder: Path, processes: int, threads: int) -> float:
    """Runs the processes side by side; returns the seconds of the slowest one's loop."""
    environment = os.environ | {"TQDM_DISABLE": "1"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, __file__, "--loop", loop, "--folder", str(folder), "--part"]
    options: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    started: list[Any] = [subprocess.Popen([*command, f"{k}", f"{processes}"], **options) for k in range(processes)]
    if [process.stdout.readline() for process in started] != ["ready\n"] * processes:
        sys.exit(f"a process of {loop} did not load; its message is above")
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(process.communicate()[0].splitlines()[-1]) for process in started)


def bob(folder: Path, images: int, *more: str) -> float:
    """Runs the command as a user does; its loop's time is not known."""
    script = "import sys; from bob.cli import main; sys.exit(main(sys.argv[1:]))"
    flags = ["--dataset", "skyworld:0.8", "--method", "bob", "--backbone", "resnet_mini", "--upto", "generate", *more]
    flags += ["--finetune.epochs", str(EPOCHS), "--out", str(folder / "store")]
    flags += ["--draw.per-class", f"{images // CLASSES}", "--draw.unit", f"{images // UNITS}"]
    subprocess.run([sys.executable, "-c", script, "run", *flags], capture_output=True, check=True)
    return float("nan")


def measured(way: str, folder: Path, images: int) -> tuple[float, float, float]:
    """Seconds of loop, command and CPU of a way, from a store without pictures."""
    loop, processes, threads = WAYS[way]
    shards = [folder / "store" / json.loads(text)["target"] for text in json.loads((folder / "units.json").read_text())]
    for shard in shards:
        shard.unlink(missing_ok=True)
    shutil.rmtree(folder / "png", ignore_errors=True)
    (folder / "png").mkdir()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    inner = bob(folder, images, *["--inline"] * processes) if loop == "bob" else loops(loop, folder, processes, threads)
    command, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not all(p.exists() for p in shards) if loop != "stock" else len(list((folder / "png").iterdir())) != images:
        sys.exit(f"{way} did not draw all pictures")
    return inner, command, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures every way in turn and prints the table; or is one process of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 300), ("repetitions", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, words in (("loop", None), ("folder", None), ("part", 2)):
        parser.add_argument(f"--{name}", nargs=words, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.loop:
        return worker(given)
    if given.images % CLASSES or not given.images:
        parser.error(f"--images must be a multiple of {CLASSES}, got {given.images}")
    taken: dict[str, list[Any]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        prepared(Path(name), given.images)
        for turn in range(given.repetitions):
            for way in list(WAYS)[:: -1 if turn % 2 else 1]:
                taken[way].append(measured(way, Path(name), given.images))
                print(way, *(f"{seconds:.1f}" for seconds in taken[way][-1]), file=sys.stderr, flush=True)
    return print(table(taken, given.images))


def table(taken: dict[str, list[Any]], images: int) -> str:
    """Markdown: medians, and how many times longer than the first way the others take."""
    lines = [f"{images} pictures, medians of {len(next(iter(taken.values())))}, {os.cpu_count()} cores; seconds.", ""]
    lines += ["| way | loop | command | CPU | loop / ours | command / ours |", "|---|" + "---:|" * 5]
    medians = {way: [statistics.median(column) for column in zip(*rows, strict=True)] for way, rows in taken.items()}
    first = next(iter(medians.values()))
    for way, (loop, command, cpu) in medians.items():
        numbers = [f"{loop:.1f}", f"{command:.1f}", f"{cpu:.1f}", f"{loop / first[0]:.2f}", f"{command / first[1]:.2f}"]
        lines.append(f"| {way} | {' | '.join(numbers)} |".replace(" nan ", " - "))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
