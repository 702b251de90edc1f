"""Everything of table1 on one GPU within ten minutes: rehearsal at full size, and stock diffusers beside ours.

    python benchmarks/gpu.py --report benchmarks/DATE-gpu.md
    python benchmarks/gpu.py --device cpu --experiment smoke --checkpoint skyworld --seconds 0.1

The second line runs the same code on the mini models. Weights that are missing are random ones of the same
architecture, and cost the same; about 30 GB of the temporary folder (TMPDIR) hold them meanwhile.

Stock is what a user of diffusers writes: `StableDiffusionPipeline` with the adapter loaded, at our batch and steps; and
a loop like that of diffusers' own LoRA scripts, which encodes its pictures at each step, in float32, with LoRA on
U-Net and text encoder, at the largest batch that fits.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from torch import nn

from bob.commands import devices, rates
from bob.commands.rehearse import rehearse, report, weights
from bob.commands.rehearse.kinds import Kind, kinds
from bob.commands.rehearse.meter import Peak, Rounds, device_name, one_thread
from bob.commands.rehearse.trials import of_each_setting, opener
from bob.commands.rehearsed import Rehearsal, Trial
from bob.core import batching
from bob.diffusion import checkpoints, lora
from bob.paper import experiments
from bob.store import Store

_RANK = 16  # Table 4


@dataclass(frozen=True, kw_only=True)
class Stock:
    """Measurement of stock diffusers."""

    per_second: float
    """In the effort of the step."""
    flops: float
    """Of one unit of effort."""
    bytes: int
    """Peak memory."""
    images: int
    """Images at once."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--device", default="auto", help="cuda or cpu; auto: a GPU")
    parser.add_argument("--experiment", default="table1", help="the experiment whose steps and models are measured")
    parser.add_argument("--checkpoint", default="sd21", help="the checkpoint that stock diffusers is measured with")
    parser.add_argument("--seconds", type=float, default=4.0, help="least time of each measurement")
    parser.add_argument("--report", default="", help="a Markdown file to write; empty: nothing is written")
    given = parser.parse_args(arguments)
    device = devices.find(given.device)
    if given.device == "auto" and device == "cpu":
        print("no GPU on this machine: name --device cpu to run the same code on mini models", file=sys.stderr)
        sys.exit(2)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, one_thread(device):
        artefacts, runs = Store(folder), experiments.load(given.experiment, (0,))
        found = kinds(runs, artefacts, upto=experiments.OUTPUTS[given.experiment].ends)
        ours = rehearse(found, artefacts, device=device, seconds=given.seconds, experiment=given.experiment)
        rows = _compared(found, ours, given.checkpoint, Path(folder), device=device, seconds=given.seconds)
    hours = _hours(given.experiment, found, ours)
    text = _report(ours, rows, hours, device=device, experiment=given.experiment, took=time.monotonic() - start)
    print(text)
    if given.report:
        Path(given.report).write_text(text, encoding="utf-8")
    if not ours:
        sys.exit(2)


def _compared(
    found: Sequence[Kind], ours: Sequence[Rehearsal], checkpoint: str, folder: Path, *, device: str, seconds: float
) -> list[tuple[str, Trial, Stock]]:
    """Our measurement and stock diffusers', for drawing from noise and for the LoRA step of one checkpoint."""
    rows: list[tuple[str, Trial, Stock]] = []
    wanted: dict[tuple[str, str], Callable[..., int]] = {
        ("generate", "text2img, default"): _draw,
        ("finetune", "U-Net + text encoder"): _train,
    }
    for kind in found:
        do = wanted.get((kind.step, kind.name)) if kind.model == checkpoint else None
        trials = [t for r in ours if (r.step, r.model) == (kind.step, checkpoint) for t in r.trials]
        trial = next((t for t in trials if t.kind == kind.name), None)
        if do is None or trial is None:
            continue
        print(f"stock diffusers: {report.title(kind.step, kind.model, kind.name)}", flush=True)
        try:
            with weights.ready(kind.step, kind.model, folder=folder, device=device):
                rows.append((kind.step, trial, _measured(do, kind, device, seconds)))
        except Exception as error:  # the rest of the report is worth having
            print(f"stock diffusers: NOT MEASURED: {str(error).partition(chr(10))[0]}", flush=True)
    return rows


def _measured(do: Callable[..., int], kind: Kind, device: str, seconds: float) -> Stock:
    with Peak(device) as memory, Rounds(device, seconds=seconds, counted=1) as rounds:
        images = do(kind, device, rounds)
    return Stock(per_second=rounds.work / rounds.seconds, flops=rounds.flops, bytes=memory.bytes, images=images)


def _draw(kind: Kind, device: str, rounds: Rounds) -> int:
    """Draws batches with a stock pipeline and a loaded adapter."""
    cell, batch = kind.cell, kind.unit.work.batch
    pipeline = _stock_pipeline(kind.model, device, half=device.startswith("cuda"))
    requests = of_each_setting(cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed), batch)
    work, first, done = len(requests) * rates.evaluations(map(vars, requests)), requests[0], False
    while not done:
        pipeline(
            [request.prompt for request in requests],
            negative_prompt=[request.negative_prompt for request in requests],
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        )
        done = rounds.tick(work)
    return batch


def _stock_pipeline(checkpoint: str, device: str, *, half: bool) -> Any:
    """A stock pipeline with an adapter of our kind, as `load_lora_weights` leaves it."""
    donor: Any = checkpoints.load(checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    lora.add(donor.unet, donor.text_encoder, rank=_RANK)
    adapter = lora.serialize(donor.unet, donor.text_encoder)
    place, revision = checkpoints.source(checkpoint)
    options: dict[str, Any] = {"revision": revision, "safety_checker": None, "use_safetensors": True}
    dtype = torch.float16 if half else torch.float32
    pipeline: Any = StableDiffusionPipeline.from_pretrained(place, dtype=dtype, **options).to(device)
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, lora.FILE).write_bytes(adapter)
        pipeline.load_lora_weights(folder, weight_name=lora.FILE)
    return pipeline


def _train(kind: Kind, device: str, rounds: Rounds) -> int:
    """Trains LoRA in a plain loop at the largest batch that fits, which is halved until it does."""
    images = kind.unit.work.settings.batch
    while True:
        try:
            _loop(kind, device, rounds, images)
            return images
        except (MemoryError, RuntimeError) as error:
            if not batching.is_out_of_memory(error) or images == 1:
                raise
        batching.release()
        images //= 2
        print(f"stock diffusers: out of memory, so {images} images at once", flush=True)


def _loop(kind: Kind, device: str, rounds: Rounds, images: int) -> None:
    work = kind.unit.work
    pipeline: Any = checkpoints.load(kind.model, device=torch.device(device), dtype=torch.float32)
    unet, text_encoder, vae = pipeline.unet, pipeline.text_encoder, pipeline.vae.requires_grad_(False)
    for model, targets in ((unet, lora._UNET_TARGETS), (text_encoder, lora._TEXT_TARGETS)):
        model.requires_grad_(False)  # and peft's own branches, where `lora.add` has a layer of ours
        model.add_adapter(LoraConfig(r=_RANK, lora_alpha=_RANK, init_lora_weights="gaussian", target_modules=targets))
    unet.train()
    text_encoder.train()
    parameters = list(lora.parameters(unet, text_encoder).values())
    optimizer = torch.optim.AdamW(parameters, lr=work.settings.lr, weight_decay=work.settings.weight_decay)
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    pixels, prompts = _pixels(kind, unet.config.sample_size * pipeline.vae_scale_factor, images)
    done = False
    while not done:
        latents = vae.encode(pixels.to(device)).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(schedule.config.num_train_timesteps, (images,), device=device)
        length = {"padding": "max_length", "max_length": pipeline.tokenizer.model_max_length, "truncation": True}
        tokens = pipeline.tokenizer(prompts, return_tensors="pt", **length).input_ids.to(device)
        predicted = unet(schedule.add_noise(latents, noise, times), times, text_encoder(tokens)[0]).sample
        nn.functional.mse_loss(predicted.float(), noise.float()).backward()
        nn.utils.clip_grad_norm_(parameters, work.settings.max_norm)
        optimizer.step()
        optimizer.zero_grad()
        done = rounds.tick(images)


def _pixels(kind: Kind, side: int, images: int) -> tuple[torch.Tensor, list[str]]:
    """Pictures float32 (images, 3, side, side) in [-1, 1], squashed to squares, and their prompts."""
    work = kind.unit.work
    shots, pairs = {shot.image_id: shot for shot in work.shots}, (work.pairs * images)[:images]
    pictures = [opener(kind)(shots[pair.image_id]).convert("RGB") for pair in pairs]
    squares = [np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)) for picture in pictures]
    stacked = torch.from_numpy(np.stack(squares))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1, [pair.prompt for pair in pairs]


def _hours(experiment: str, found: Sequence[Kind], ours: Sequence[Rehearsal]) -> str:
    """Device-hours of the experiment by the measured rates, and what these leave out."""
    trials = {(r.step, r.model, t.kind): t.planned / t.per_second / 3600 for r in ours for t in r.trials}
    parts = [f"{report.title(*name)} {hours:,.3g}" for name, hours in trials.items()]
    left = [kind for kind in found if (kind.step, kind.model, kind.name) not in trials]
    lacking = ", ".join(report.title(kind.step, kind.model, kind.name) for kind in left)
    words = f"By these rates {experiment} takes {sum(trials.values()):,.3g} device-hours: {', '.join(parts)}."
    return f"{words} Without: {lacking}." if lacking else words


def _report(
    ours: Sequence[Rehearsal],
    rows: Sequence[tuple[str, Trial, Stock]],
    hours: str,
    *,
    device: str,
    experiment: str,
    took: float,
) -> str:
    words = " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    columns = "| | ours, a second | stock | ours / stock | at once | GB | share of peak |"
    table = [columns, "|---|---|---|---|---|---|---|"]
    for step, trial, stock in rows:
        share = f"{stock.flops * stock.per_second / trial.peak:.0%}" if trial.peak else "-"
        table.append(
            f"| {step} | {trial.per_second:,.3g} | {stock.per_second:,.3g} | {trial.per_second / stock.per_second:.2f}"
            f" | {trial.images}, {stock.images} | {trial.bytes / 1e9:.1f}, {stock.bytes / 1e9:.1f}"
            f" | {trial.share:.0%}, {share} |"
        )
    lines = [
        f"# {experiment} on {device_name(device)}, {time.strftime('%Y-%m-%d')}",
        "",
        f"`{words}`, torch {torch.__version__}, in {took:.0f} s.",
        "",
        report.markdown(ours),
        hours,
        "",
        *(["Pairs are ours, stock diffusers.", "", *table] if rows else ["Stock diffusers was not measured."]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
