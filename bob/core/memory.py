"""Memory and arithmetic of each step with each model, and the micro-batch that a card takes. Imports no torch.

The figures were counted at full size, from configuration alone, by benchmarks/memory.py, which writes
`memory_table.json`; none was measured on a GPU. Bytes are those that tensors occupy at their peak, memory-efficient
attention assumed.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bob.core.settings import FinetuneSettings
from bob.core.types import Tuning

__all__ = ["CARDS", "PICTURES", "RESERVED", "SPARE", "Card", "Footprint", "MicroBatch", "caption", "classify"]
__all__ += ["drawn_at_once", "finetune", "fits", "generate", "host", "lockstep", "micro_batch", "misfit"]

RESERVED = 1_000_000_000
"""Bytes of a GPU that no tensor occupies: the CUDA context, 0.45 GB, and the workspaces of cuBLAS (32 MiB on Hopper, by
NVIDIA's documentation) and cuDNN, 0.5 GB. Assumed, not measured."""
SPARE = 0.10
"""Fraction of the free memory that stays free: the allocator loses some to fragmentation."""
PICTURES = 0.10
"""Fraction of a GPU's free memory that a process keeps the classifier's pictures in, if they fit there; the same again
for the views of validation images, and of test images. Cars and CUB have 6 GB of pictures at 320 px."""

DRAWN = 50
"""Images that a GPU draws at once where its memory takes them. Assumed, not measured: with guidance they are 100 rows
of the U-Net, work enough for all of an H100. Half a unit of the paper's settings, so that the first half is encoded
while the second is drawn."""

_PARAMETER = 16
"""Bytes of a trained parameter in float32: itself, its gradient and AdamW's two moments."""
KEPT_POSTERIORS = 2_000
"""VAE posteriors that a fine-tune keeps on a GPU; the host keeps more."""
_FORWARDS = {False: 2.15, True: 3.15}
"""Whether activations are checkpointed -> time of a training step on one image, in forward passes: the arithmetic of
a LoRA sample, and of the pass that checkpointing repeats."""
_SATURATED = {"float32": 1, "tf32": 2, "bfloat16": 4, "float16": 4}
"""Precision -> images below which a pass takes a GPU no less time. Assumed: an image of 64 x 64 latents has enough
work for all of a GPU in float32; Tensor Cores finish it sooner than the host can launch it."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes and arithmetic of one step with one model."""

    weights: int
    """Bytes of the weights and buffers."""
    trained: int
    """Bytes of what is trained beside `weights`: adapters, gradients and the optimiser's moments; 0 if nothing is."""
    workspace: int
    """Bytes independent of the batch: temporaries, kept latents and `RESERVED`."""
    image: int
    """Bytes that each image of a micro-batch adds at the peak: activations and temporaries."""
    checkpointed: int
    """The same with gradient checkpointing; 0: not offered."""
    flops: float
    """Floating-point operations of one image: a training step, an evaluation of the U-Net, or an answer."""

    def bytes(self, images: int, *, checkpointing: bool = False) -> int:
        """Peak bytes with a micro-batch of `images`."""
        each = self.checkpointed if checkpointing else self.image
        return self.weights + self.trained + self.workspace + images * each


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU."""

    name: str
    bytes: int
    """Memory that the driver offers, a little less than the advertised number."""
    peaks: Mapping[str, float]
    """Precision -> FLOP/s of dense matrix products, from NVIDIA's data sheets; absent: not supported."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Images of a batch that go through a model at once."""

    images: int
    checkpointing: bool
    """Whether activations are recomputed in the backward pass (gradient checkpointing)."""


def _card(name: str, gib: float, float32: float, tf32: float, half: float, *, bfloat16: bool = True) -> Card:
    """A card from its memory in GiB and its peaks in TFLOP/s; 0: not supported."""
    peaks = {"float32": float32, "tf32": tf32, "float16": half, "bfloat16": half if bfloat16 else 0.0}
    return Card(name=name, bytes=int(gib * 2**30), peaks={k: v * 1e12 for k, v in peaks.items() if v})


CARDS: Mapping[str, Card] = {
    card.name: card
    for card in (
        _card("L4", 22.0, 30.3, 60.5, 121),
        _card("A10G", 22.0, 31.5, 35, 70),
        _card("A100-40", 39.4, 19.5, 156, 312),
        _card("A100-80", 79.1, 19.5, 156, 312),
        _card("H100", 79.1, 66.9, 494.7, 989.4),
        _card("H200", 139.7, 66.9, 494.7, 989.4),
        _card("L40S", 44.3, 91.6, 183, 362),
        _card("RTX4090", 23.5, 82.6, 82.6, 165.2),
        _card("T4", 14.5, 8.1, 0, 65, bfloat16=False),
        _card("V100", 15.7, 15.7, 0, 125, bfloat16=False),
    )
}
"""Name -> card. Memory is what torch's messages of exhausted memory give as the card's total capacity."""


def finetune(architecture: str, tuning: Tuning, settings: FinetuneSettings) -> Footprint | None:
    """Footprint of a fine-tune's optimiser step; None for an unknown architecture.

    Args:
        architecture: `checkpoints.architecture` of the T2I checkpoint: `sd15`, `sd21` or `skyworld`.
        tuning: what is trained, and at which side. A side between the counted ones is taken for the next larger.
        settings: rank of the LoRA and precision.
    """
    entry = _table()["finetune"].get(architecture)
    if entry is None:
        return None
    precision = "bfloat16" if settings.precision == "bfloat16" else "float32"  # TF32 takes what float32 takes
    parts = _parts(tuning)
    counted = entry["steps"][f"{parts} {precision}"]
    sides = sorted(map(int, counted))
    step = counted[str(next((side for side in sides if side >= (tuning.side or sides[-1])), sides[-1]))]
    lora = sum(entry["lora"][name] for name in ("unet", "text_encoder") if getattr(tuning, name))
    words = sum(token.vectors for token in tuning.tokens) * entry["width"]
    return Footprint(
        weights=entry["weights"],
        trained=_PARAMETER * (settings.rank * lora + words),
        workspace=RESERVED + entry["encode"] + KEPT_POSTERIORS * entry["posterior"] + step["fixed"],
        image=step["image"],
        checkpointed=step["checkpointed"],
        flops=step["flops"],
    )


def _parts(tuning: Tuning) -> str:
    """The counted combination that needs as much as what is trained, or more."""
    if not tuning.unet and not tuning.text_encoder:
        return "words"
    return "unet+words" if tuning.tokens and not tuning.text_encoder else "unet+text"


def generate(architecture: str) -> Footprint | None:
    """Footprint of drawing in float16; None for an unknown architecture."""
    return _plain(_table()["generate"].get(architecture))


def caption(captioner: str) -> Footprint | None:
    """Footprint of a captioner in bfloat16, of which an image is a picture with its two questions; None: unknown.

    Args:
        captioner: its name with its checkpoint: `qwen_vl`, `qwen_vl:3b`.
    """
    return _plain(_table()["caption"].get("qwen_vl:7b" if captioner == "qwen_vl" else captioner))


def classify(backbone: str, *, classes: int, precision: str = "bfloat16") -> Footprint | None:
    """Footprint of a classifier's training step; None for an unknown backbone.

    Args:
        backbone: its name, without a checkpoint of the user's.
        classes: number of classes, of which each adds a row of the head, or a prompt of 20 tokens (CLIP), whose
            arithmetic is shared by the images of a batch of 64.
        precision: `float32`, `tf32`, `bfloat16` or `float16`.
    """
    entry = _table()["classify"].get(backbone)
    if entry is None:
        return None
    step = entry["steps"]["float32" if precision in ("float32", "tf32") else "bfloat16"]
    return Footprint(
        weights=entry["weights"],
        trained=entry["trained"] + classes * entry["trained_class"],
        workspace=RESERVED + step["fixed"] + classes * step["class"],
        image=step["image"],
        checkpointed=0,
        flops=step["flops"] + classes * step["flops_class"],
    )


def _plain(entry: Mapping[str, Any] | None) -> Footprint | None:
    if entry is None:
        return None
    return Footprint(
        weights=entry["weights"],
        trained=0,
        workspace=RESERVED + entry["fixed"],
        image=entry["image"],
        checkpointed=0,
        flops=entry["flops"],
    )


def micro_batch(footprint: Footprint, *, free: int, batch: int, precision: str) -> MicroBatch:
    """The micro-batch that trains a batch in the least time, in as equal parts as possible.

    Time is counted in forward passes of one image; equal times go to the one without checkpointing.

    Args:
        footprint: of the step.
        free: bytes for all of the footprint, weights and CUDA context included; `SPARE` of them stays free.
        batch: images of an optimiser step.
        precision: that of the forward pass: `float32`, `tf32`, `bfloat16` or `float16`.

    Raises:
        ValueError: if not even one image fits.
    """
    ways: list[tuple[float, MicroBatch]] = []
    for checkpointing in (False, True):
        most = fits(footprint, free=free, checkpointing=checkpointing)
        if most >= 1 and (not checkpointing or footprint.checkpointed):
            passes = math.ceil(batch / most)
            images = math.ceil(batch / passes)
            cost = passes * max(images, _SATURATED[precision]) * _FORWARDS[checkpointing]
            ways.append((cost, MicroBatch(images=images, checkpointing=checkpointing)))
    if not ways:
        raise ValueError(misfit(footprint, free=free, images=1))
    return min(ways, key=lambda way: way[0])[1]


def fits(footprint: Footprint, *, free: int, checkpointing: bool = False) -> int:
    """Number of images that fit into `free` bytes beside all else, `SPARE` of them left; 0: none."""
    left = (1 - SPARE) * free - footprint.bytes(0)
    each = footprint.checkpointed if checkpointing else footprint.image
    return max(0, int(left // max(1, each)))


def drawn_at_once(footprint: Footprint, *, free: int, batch: int, of: int) -> int:
    """Images that a GPU draws at once: `batch`, or as many more as `free` bytes take, `DRAWN` at most, in equal parts.

    Args:
        footprint: of drawing.
        free: bytes for all of it.
        batch: the least number.
        of: images of the unit.
    """
    most = max(batch, min(DRAWN, fits(footprint, free=free)))
    return math.ceil(of / math.ceil(of / most))


def lockstep(footprint: Footprint, *, free: int, images: int) -> int:
    """Number of models that one process trains in lockstep in `free` bytes, `SPARE` of them left; 0: none.

    Each has weights, gradients and moments of its own. They take turns at a batch, so that the activations of one, the
    temporaries and the CUDA context are there once.

    Args:
        footprint: of the training of one.
        free: bytes for all of them.
        images: of a batch.
    """
    left = (1 - SPARE) * free - footprint.workspace - images * footprint.image
    return max(0, int(left // (footprint.weights + footprint.trained)))


def misfit(footprint: Footprint, *, free: int, images: int) -> str:
    """Says in numbers that so many images do not fit into `free` bytes; checkpointed where that is offered."""
    needed = footprint.bytes(images, checkpointing=bool(footprint.checkpointed))
    subject = "one image needs" if images == 1 else f"{images} images need"
    return (
        f"{subject} {needed / 1e9:.1f} GB, of which weights take {footprint.weights / 1e9:.1f}, and"
        f" {(1 - SPARE) * free / 1e9:.1f} GB may be used, since {100 * SPARE:.0f} % of {free / 1e9:.1f} GB stays free"
    )


def host() -> int | None:
    """Bytes of the host's memory that are free, within the limit of a container; None where the kernel does not say."""
    about = _words(Path("/proc/meminfo"))
    if "MemAvailable:" not in about:
        return None
    free = [int(about[about.index("MemAvailable:") + 1]) * 1024]
    for group in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")):
        for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            numbers = [word for name in names for word in _words(group / name)]
            if len(numbers) == 2 and all(word.isdigit() for word in numbers):  # "max": there is no limit
                free.append(max(0, int(numbers[0]) - int(numbers[1])))
    return min(free)


def _words(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split() if file.is_file() else []


@functools.cache
def _table() -> Mapping[str, Any]:
    """Counted figures; keys as benchmarks/memory.py writes them."""
    return json.loads(Path(__file__).with_name("memory_table.json").read_text(encoding="utf-8"))
