"""Full-size Stable Diffusion 1.5 with random weights: one LoRA step and one image, checked against stock diffusers.

    python benchmarks/full_size.py --report benchmarks/DATE-full-size.md      up to 24 GB of memory, no network
    python benchmarks/full_size.py --checkpoint path:FOLDER                   any other checkpoint

Random weights draw noise at the cost of trained weights. A step takes one image at 512 x 512; the image is drawn in
two steps with guidance. The adapter is saved, loaded into a stock StableDiffusionPipeline by `load_lora_weights`, and
has to give the same image there: within 2 of 255, since float32 sums in another order round differently.
"""

import argparse
import gc
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from bob.core.settings import FinetuneSettings
from bob.core.types import Request
from bob.diffusion import checkpoints, lora, random_weights, sampling
from bob.diffusion.image_generator import ImageGenerator
from bob.diffusion.training import Pairs, train

_PROMPT = "a aircraft photo of a Boeing 737 in the grey runway background with the level left pose."
_CPU = torch.device("cpu")


def main() -> None:
    """Measures and checks one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", default="", help="path:FOLDER; empty: SD 1.5 with new random weights")
    parser.add_argument("--report", default="", help="a Markdown file to write; empty: nothing is written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows: list[tuple[str, float, float]] = []
        checkpoint = given.checkpoint or _timed(rows, "make the weights", lambda: _random(Path(folder, "sd15")))
        adapter, size = _timed(rows, "load, one LoRA step at batch 1, save", lambda: _trained(checkpoint))
        gc.collect()
        ours = _timed(rows, "load, draw one image in two steps", lambda: _drawn(checkpoint, adapter))
        gc.collect()
        theirs = _timed(rows, "the same in a stock pipeline", lambda: _stock(checkpoint, adapter, Path(folder)))
    apart = np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max()
    words = f"{ours.width} x {ours.height} pixels, adapter {len(adapter) / 1e6:.1f} MB ({size:,} parameters)"
    text = _report(rows, words, int(apart), given.checkpoint or "SD 1.5's architecture, random weights")
    print(text)
    if given.report:
        Path(given.report).write_text(text)
    if apart > 2:
        sys.exit(f"the stock pipeline draws another image: up to {apart} of 255 apart")


def _timed(rows: list[tuple[str, float, float]], name: str, do: Callable[[], Any]) -> Any:
    start = time.monotonic()
    result = do()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    rows.append((name, time.monotonic() - start, peak))
    print(f"{name}: {rows[-1][1]:.0f} s, peak so far {peak:.1f} GB", flush=True)
    return result


def _random(folder: Path) -> str:
    random_weights.write("sd15", folder, half=False)
    return f"path:{folder}"


def _trained(checkpoint: str) -> tuple[bytes, int]:
    """The adapter after one training step, and its number of parameters."""
    pipeline = checkpoints.load(checkpoint, device=_CPU, dtype=torch.float32)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    settings = FinetuneSettings(total_steps=1, batch=1, lr=1e-2, warmup_steps=0)  # large, to change the image
    train(pipeline, Pairs([Image.fromarray(noise)], [_PROMPT]), settings=settings, seed=0)
    adapter = lora.serialize(pipeline.unet, pipeline.text_encoder)
    return adapter, sum(p.numel() for p in lora.parameters(pipeline.unet, pipeline.text_encoder).values())


def _request() -> Request:
    return Request(request_id="0-0", class_id=0, index=0, prompt=_PROMPT, seed=1, steps=2)


def _drawn(checkpoint: str, adapter: bytes) -> Image.Image:
    """The image drawn by `ImageGenerator` with the adapter fused."""
    generator = ImageGenerator("cpu")
    generator.use(checkpoint, "adapter", lambda: {lora.FILE: adapter})
    (picture,) = sampling.draw(generator._pipeline, [_request()], sampling.Sources(generator._pipeline))
    assert picture is not None, "values that are not finite"
    return picture


def _stock(checkpoint: str, adapter: bytes, folder: Path) -> Image.Image:
    """The image drawn by diffusers alone."""
    (folder / lora.FILE).write_bytes(adapter)
    weights = checkpoint.removeprefix("path:")
    pipeline: Any = StableDiffusionPipeline.from_pretrained(weights, safety_checker=None, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(folder, weight_name=lora.FILE)
    request = _request()
    generator = torch.Generator().manual_seed(request.seed)
    call = {"num_inference_steps": request.steps, "guidance_scale": request.guidance, "generator": generator}
    return pipeline(request.prompt, **call).images[0]


def _report(rows: list[tuple[str, float, float]], words: str, apart: int, what: str) -> str:
    lines = [
        f"# {what}, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python benchmarks/full_size.py` on {platform.machine()}, {torch.get_num_threads()} threads of torch"
        f" {torch.__version__}, float32, no GPU.",
        "",
        "| | seconds | peak memory so far, GB |",
        "|---|---|---|",
        *(f"| {name} | {seconds:.0f} | {peak:.1f} |" for name, seconds, peak in rows),
        "",
        f"{words[0].upper()}{words[1:]}. Our image and the stock pipeline's differ by at most {apart} of 255.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
