"""LoRA steps of a fine-tune against a loop as diffusers' own scripts have it, on the same weights and pictures.

    python benchmarks/finetuning.py [--steps 60 --repetitions 3 --before FOLDER --report benchmarks/DATE-finetuning.md]

On skyworld, with the prompts of BOB, of which most pictures have their own, and of DataDream, one a class. Plain is
what a user writes: accelerate, a data loader, pictures encoded by the VAE at each step, peft's LoRA on U-Net and text
encoder, torch's AdamW, each with its defaults. Each way runs once in one process with a thread a core, and once in as
many processes as there are cores with one thread each, which start their steps together. All ways take turns; a time is
that of the steps alone, without imports and loading. `--before` names a checkout of an earlier version to measure too.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

METHODS = ("bob", "datadream")


def prepared(folder: Path) -> None:
    """Writes each method's pictures and prompts, after the captioner has run in this process."""
    from bob import pipeline
    from bob.commands import console
    from bob.pipeline import walk
    from bob.steps import workers
    from bob.steps.defaults import defaults
    from bob.steps.finetune import FinetuneWorker
    from bob.store import Store

    artefacts, inline = Store(str(folder / "store")), workers.inline("cpu")
    for method in METHODS:
        run = defaults(checkpoint="skyworld", backbone="resnet_mini", captioner="qwen_vl:skyworld", method=method)
        pipeline.execute([run], artefacts=artefacts, executor=inline, report=console.report, upto="caption")
        steps = walk.walk([pipeline.split(run, artefacts)], artefacts)
        (unit,) = next(units for step, units in steps if step == "finetune")
        pairs = FinetuneWorker(artefacts.root, device="cpu")._pairs(unit.work)
        for k, image in enumerate(pairs.images):
            image.save(folder / f"{method}-{k:03d}.png")
        (folder / f"{method}.json").write_text(json.dumps({"prompts": pairs.prompts, **vars(unit.work.settings)}))


def ours(pipeline: Any, images: list[Any], prompts: list[str], settings: Any, start: Callable[[], None]) -> None:
    """The steps of `bob.diffusion.training`, which calls `start` after the first."""
    from bob.diffusion.training import Callbacks, Pairs, train

    settings = dataclasses.replace(settings, total_steps=settings.total_steps + 1, checkpoint_every=1)
    begin = Callbacks(report=lambda done, _: start() if done == 1 else None)
    train(pipeline, Pairs(images, prompts), settings=settings, seed=0, callbacks=begin)


def plain(pipeline: Any, images: list[Any], prompts: list[str], settings: Any, start: Callable[[], None]) -> None:
    """As many steps like those of diffusers' `train_text_to_image_lora.py`, with LoRA on the text encoder too."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig

    accelerator = Accelerator(cpu=True)
    noising: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    vae, unet, text = pipeline.vae.requires_grad_(False), pipeline.unet, pipeline.text_encoder
    targets = ["to_k", "to_q", "to_v", "to_out.0"], ["q_proj", "k_proj", "v_proj", "out_proj"]
    for model, names in zip((unet, text), targets, strict=True):
        model.requires_grad_(False)
        rank = settings.rank
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=names))
        model.train()
    trained = [p for model in (unet, text) for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay)
    length = {"padding": "max_length", "max_length": pipeline.tokenizer.model_max_length, "truncation": True}
    tokens = pipeline.tokenizer(list(prompts), return_tensors="pt", **length).input_ids
    pixels = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1).float() / 127.5 - 1 for i in images])
    dataset = torch.utils.data.TensorDataset(pixels, tokens)
    loader = torch.utils.data.DataLoader(dataset, batch_size=settings.batch, shuffle=True)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=1, num_training_steps=settings.total_steps)
    unet, text, optimizer, loader, schedule = accelerator.prepare(unet, text, optimizer, loader, schedule)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    for step, (shown, words) in zip(range(settings.total_steps + 1), batches(), strict=False):
        latents = vae.encode(shown).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(noising.config["num_train_timesteps"], (len(latents),))
        predicted = unet(noising.add_noise(latents, noise, times), times, text(words)[0]).sample
        accelerator.backward(nn.functional.mse_loss(predicted.float(), noise.float()))
        accelerator.clip_grad_norm_(trained, settings.max_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if not step:
            start()


WAYS: dict[str, Callable[..., None]] = {"ours": ours, "before": ours, "plain": plain}


def worker(given: Any) -> None:
    """Loads, does a step, says that it is ready, and on a line of the input does the others; prints their seconds."""
    from bob.core import malloc
    from bob.core.settings import FinetuneSettings
    from bob.diffusion import checkpoints

    malloc.keep_freed()  # as all of our processes do: plain has it too
    torch.set_num_threads(given.threads)
    about = json.loads((given.folder / f"{given.method}.json").read_text())
    prompts, begun = about.pop("prompts"), [0.0, 0.0]
    about |= {"total_steps": given.steps, "keep": ()}
    images = [Image.open(given.folder / f"{given.method}-{k:03d}.png").convert("RGB") for k in range(len(prompts))]
    pipeline = checkpoints.load("skyworld", device=torch.device("cpu"), dtype=torch.float32)

    def start() -> None:
        print("ready", flush=True)
        sys.stdin.readline()
        begun[:] = time.monotonic(), time.process_time()

    WAYS[given.way](pipeline, images, prompts, FinetuneSettings(**about), start)
    print(json.dumps([time.monotonic() - begun[0], time.process_time() - begun[1]]), flush=True)


def seconds(way: str, method: str, folder: Path, *, processes: int, threads: int, given: Any) -> tuple[float, float]:
    """Wall-clock seconds of a step, of the slowest of processes side by side, and CPU seconds of a step and process."""
    command = [sys.executable, __file__, "--way", way, "--method", method, "--folder", str(folder)]
    command += ["--steps", str(given.steps), "--threads", str(threads)]
    root = given.before if way == "before" else str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": str(threads)}
    options: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    started: list[Any] = [subprocess.Popen(command, **options) for _ in range(processes)]
    for process in started:
        while process.stdout.readline() != "ready\n":
            if process.poll() is not None:
                sys.exit(f"a process of {way} ended with {process.returncode}")
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    wall, cpu = (np.array(ends) / given.steps).T
    return float(wall.max()), float(cpu.mean())


def report(folder: Path, given: Any) -> str:
    """Markdown: medians of each way, and how many times longer the others take than ours."""
    cores, ways = os.cpu_count() or 1, [way for way in WAYS if way != "before" or given.before]
    lines = [f"{given.steps} steps, medians of {given.repetitions}, {cores} cores; ms a step.", ""]
    lines += ["| prompts | processes x threads | way | wall | CPU | wall / ours | CPU / ours |", "|---" * 7 + "|"]
    for method in METHODS:
        for processes, threads in dict.fromkeys(((1, cores), (cores, 1))):
            taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for turn in range(given.repetitions):
                for way in ways[:: 1 if turn % 2 else -1]:
                    how = {"processes": processes, "threads": threads, "given": given}
                    taken[way].append(seconds(way, method, folder, **how))
                    print(method, processes, threads, way, taken[way][-1], file=sys.stderr, flush=True)
            medians = {way: [statistics.median(column) for column in zip(*taken[way], strict=True)] for way in ways}
            for way, (wall, cpu) in medians.items():
                ratios = f"{wall / medians['ours'][0]:.2f} | {cpu / medians['ours'][1]:.2f}"
                times = f"{1000 * wall:.0f} | {1000 * cpu:.0f}"
                lines.append(f"| {method} | {processes} x {threads} | {way} | {times} | {ratios} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the report; or is one process of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="", help="a checkout of an earlier version")
    parser.add_argument("--report", default="", help="a Markdown file to write; empty: nothing is written")
    for name, default in (("steps", 60), ("repetitions", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("way", "method"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        worker(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        prepared(Path(folder))
        text = report(Path(folder), given)
    print(text)
    if given.report:
        Path(given.report).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
