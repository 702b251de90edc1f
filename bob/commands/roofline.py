"""Time of a model's counted arithmetic and memory traffic on each GPU: what a rate is derived from where none is known.

    seconds = products / (a half of the peak) + bytes / (four fifths of the bandwidth)

One after the other, since kernels that are not fused either compute or move. Operations and bytes were counted at full
size by benchmarks/real_size.py and benchmarks/memory.py; no time was measured on a GPU. Held against published ones:

- Stable Diffusion 1.5 on an A100, float16: 1.27 images a second; diffusers' documentation has 1.15, 1.50 compiled.
- ResNet-50 on an A100: 1,500 pictures; NVIDIA's DeepLearningExamples have 2,470, augmented elsewhere. MLPerf's tuned
  code trains 7,160 on an H100, for which this gives 3,500.
"""

from dataclasses import dataclass

from bob.core.memory import CARDS

__all__ = ["BANDWIDTH", "DRAWN", "ENCODE", "FINETUNED", "TRAINED", "Work", "seconds"]

_COMPUTE, _MOVE = 0.5, 0.8
"""Shares of the data sheets' peak and bandwidth that are assumed to be reached."""

BANDWIDTH = {
    name: gigabytes * 1e9
    for name, gigabytes in {
        "L4": 300,
        "A10G": 600,
        "A100-40": 1_555,
        "A100-80": 2_039,
        "H100": 3_350,
        "H200": 4_800,
        "L40S": 864,
        "RTX4090": 1_008,
        "T4": 320,
        "V100": 900,
    }.items()
}
"""Card of `memory.CARDS` -> bytes a second of its memory, from NVIDIA's data sheets (of A100, H100 and V100: SXM)."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counted work."""

    convolutions: float = 0.0
    """FLOPs of convolutions: in float32 they run in TF32 where a card has it."""
    products: float
    """FLOPs of all other products."""
    bytes: float
    """All inputs and outputs of all operations, none fused."""
    precision: str
    """`float32`, or `float16` for either half precision."""


def seconds(work: Work, card: str) -> float:
    """Seconds of some work on a card of `memory.CARDS`."""
    peaks, precision = CARDS[card].peaks, work.precision
    convolutions = peaks.get("tf32", peaks[precision]) if precision == "float32" else peaks[precision]
    computed = work.convolutions / convolutions + work.products / peaks[precision]
    return computed / _COMPUTE + work.bytes / (_MOVE * BANDWIDTH[card])


DRAWN = Work(products=84.4e12, bytes=308e9, precision="float16")
"""An image at 512 px: 102 evaluations of the U-Net and the VAE's decoder; SD 1.5, and 2.1-base within 3 %."""
FINETUNED = {
    "sd15": Work(convolutions=0.872e12, products=0.946e12, bytes=20.9e9, precision="float32"),
    "sd21": Work(convolutions=0.822e12, products=1.063e12, bytes=21.7e9, precision="float32"),
}
"""Architecture -> a picture of a LoRA step at 512 px, U-Net and text encoder, latents kept: 2.2 evaluations."""
ENCODE = Work(convolutions=1.074e12, products=0.043e12, bytes=9.7e9, precision="float32")
"""A picture at 512 px through the VAE's encoder."""
TRAINED = {
    "resnet50": Work(products=24.7e9, bytes=0.633e9, precision="float16"),
    "mae_vit_b16": Work(products=106.1e9, bytes=0.790e9, precision="float16"),
    "clip_vit_b16": Work(products=82.2e9, bytes=1.497e9, precision="float16"),
}
"""Backbone -> a picture of a training step of 64 with augmentation, 200 classes."""
