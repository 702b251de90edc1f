"""Markdown report of the memory model: what each card takes, and what an image of each model needs."""

import time
from collections.abc import Iterator
from typing import Any

from bob import methods
from bob.core import memory
from bob.core.budget import Budget
from bob.core.settings import FinetuneSettings
from bob.core.types import Shot, TrainingSet, Tuning
from bob.steps.defaults import defaults

__all__ = ["report"]

CARDS = {16: "T4", 24: "L4", 40: "A100-40", 80: "A100-80"}
"""Gigabytes, as sold -> the card of `memory.CARDS` with the least of them."""
FINETUNES = {
    "bob": "BOB, DataDream",
    "da_fusion": "Da-fusion",
    "diff_mix": "Diff-Mix, Diff-Aug, Diff-Gen, Diff-II",
}
"""A method of each kind of fine-tune -> all of that kind."""
CLASSES = 200
"""Of CUB, the most of Table 1's data sets: words to learn, and rows of a head or prompts."""


def finetune(method: str, checkpoint: str) -> tuple[Tuning, FinetuneSettings]:
    """What a method trains, and its default settings, on a data set of `CLASSES` classes with a shot each."""
    names = tuple(f"class {k}" for k in range(CLASSES))
    shots = tuple(
        Shot(image_id=name, sha1="", path="", class_id=k, class_name=name, split="train", width=512, height=512)
        for k, name in enumerate(names)
    )
    training = TrainingSet(
        dataset="any",
        descriptor="thing",
        superclass="thing",
        class_names=names,
        shots=shots,
        budget=Budget(drawn=(0,) * CLASSES, copies=1, alone=1),
    )
    run = defaults(checkpoint=checkpoint, backbone="resnet50", captioner="qwen_vl:7b", method=method)
    return methods.load(method).tuning(training), run.finetune


def report() -> str:
    """The whole report."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    table = memory._table()
    yield f"# Memory of each step on each GPU, {time.strftime('%Y-%m-%d')}"
    yield ""
    yield (
        "`python -m benchmarks.memory`: counted on torch's meta device at full size, nothing was measured on a GPU."
        f" Table: {table['made']}. GB are 10^9 bytes."
    )
    yield ""
    yield from _cards()
    yield ""
    yield from _images(table)
    yield ""
    yield from _others(table)


def _cards() -> Iterator[str]:
    yield (
        f"Micro-batch, memory and its share of the card, float32, default settings; {100 * memory.SPARE:.0f} % of the"
        f" card stay free, and {memory.RESERVED / 1e9:g} GB are set aside for the CUDA context and the libraries'"
        " workspaces (assumed)."
    )
    yield ""
    sizes = " | ".join(f"{size} GB: {name}, {memory.CARDS[name].bytes / 1e9:.1f}" for size, name in CARDS.items())
    yield f"| checkpoint | methods | batch | {sizes} |"
    yield "|---" * (3 + len(CARDS)) + "|"
    for checkpoint in ("sd15", "sd21"):
        for method, words in FINETUNES.items():
            tuning, settings = finetune(method, checkpoint)
            cells = " | ".join(_cell(checkpoint, tuning, settings, name) for name in CARDS.values())
            yield f"| {checkpoint} | {words} | {settings.batch} | {cells} |"


def _cell(checkpoint: str, tuning: Tuning, settings: FinetuneSettings, card: str) -> str:
    footprint = memory.finetune(checkpoint, tuning, settings)
    assert footprint is not None
    free = memory.CARDS[card].bytes
    micro = memory.micro_batch(footprint, free=free, batch=settings.batch, precision="float32")
    needed = footprint.bytes(micro.images, checkpointing=micro.checkpointing)
    checkpointed = ", checkpointed" * micro.checkpointing
    return f"{micro.images}{checkpointed}: {needed / 1e9:.1f} GB, {100 * needed / free:.0f} %"


def _images(table: Any) -> Iterator[str]:
    yield "Fine-tunes: bytes that an image adds at the peak, without and with gradient checkpointing."
    yield ""
    yield "| | precision | side | GB an image | checkpointed | independent of the batch, GB | TFLOP an image |"
    yield "|---" * 7 + "|"
    for name, entry in table["finetune"].items():
        kept = memory.KEPT_POSTERIORS * entry["posterior"]
        for key, sides in entry["steps"].items():
            parts, precision = key.split()
            for side, step in sides.items():
                fixed = entry["weights"] + entry["encode"] + kept + memory.RESERVED + step["fixed"]
                figures = step["image"] / 1e9, step["checkpointed"] / 1e9, fixed / 1e9, step["flops"] / 1e12
                yield f"| {name} {parts} | {precision} | {side} | " + " | ".join(f"{x:.3g}" for x in figures) + " |"


def _others(table: Any) -> Iterator[str]:
    yield f"Drawing in float16, captions in bfloat16, and classifiers at batch 64 with {CLASSES} classes in bfloat16:"
    yield ""
    yield "| | weights, GB | GB an image | all, GB | GFLOP an image |"
    yield "|---" * 5 + "|"
    rows = [(f"draw {name}, 10 at once", memory.generate(name), 10) for name in table["generate"]]
    rows += [(f"caption {name}, 16 at once", memory.caption(name), 16) for name in table["caption"]]
    rows += [(f"train {name}", memory.classify(name, classes=CLASSES), 64) for name in table["classify"]]
    for name, footprint, images in rows:
        assert footprint is not None
        figures = footprint.weights / 1e9, footprint.image / 1e9, footprint.bytes(images) / 1e9, footprint.flops / 1e9
        yield f"| {name} | " + " | ".join(f"{figure:,.3g}" for figure in figures) + " |"
    yield ""
    yield (
        "Drawing: GB that an image adds in each phase of a batch, of which the largest counts. The VAE dominates: its"
        " outer blocks hold 128 to 256 channels at the picture's full size, for all of the batch at once."
    )
    yield ""
    yield "| | two evaluations of the U-Net | VAE decodes | VAE encodes two sources (Diff-II) |"
    yield "|---" * 4 + "|"
    for name, entry in table["generate"].items():
        phases = " | ".join(f"{entry['phases'][phase] / 1e9:.3g}" for phase in ("evaluate", "decode", "encode"))
        yield f"| {name} | {phases} |"
