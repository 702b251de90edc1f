"""Measures a stage: its host work, what it launches, copies and waits for, and what the GPU does meanwhile."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting import narrow_qwen
from benchmarks.counting.copies import Copies, NumberlessCopies
from benchmarks.counting.host import Laps, Operations, meta_as_gpu
from benchmarks.counting.live_bytes import LiveBytes, autocast
from benchmarks.counting.meter import Meter
from benchmarks.counting.stages import Stage
from bob.core import memory
from tests.devices import installed

__all__ = ["BANDWIDTH", "EFFICIENCY", "LAUNCH", "Measured", "measure"]

LAUNCH = 5e-6
"""Seconds that the host takes to launch an operation on a GPU: assumed. The Python of the networks' layers comes on
top: diffusers publishes 1.59 s for an image in 50 steps on an A100, at most 35 us an operation."""
PASSES = ("model", "backward", "U-Net", "VAE", "text encoder", "vision tower", "language model")
PASSES += ("optimiser", "clipping")
"""Activities whose host time on meta tensors is mostly that of torch's kernels for these."""
EFFICIENCY = 0.6
"""Share of the peak that products are taken to reach."""
BANDWIDTH = 3.35e12
"""Bytes a second of an H100 SXM's memory, by NVIDIA's data sheet."""

Counts = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One step of a stage."""

    stage: Stage
    laps: dict[str, float]
    """Activity -> CPU seconds of the host, on meta tensors."""
    counts: Counts
    """`operations`, `moved` (bytes), `convolutions` and `products` (FLOPs), `to_device` and `to_host` (bytes),
    `copies`, `blocking`, `waits`."""
    peak: float
    """Bytes of all live tensors."""
    activations: float
    """Bytes that the step adds to what is alive between steps."""

    @property
    def host(self) -> float:
        """CPU seconds on meta tensors."""
        return math.fsum(self.laps.values())

    @property
    def beside(self) -> float:
        """CPU seconds outside of the networks' passes and the optimiser."""
        return math.fsum(seconds for name, seconds in self.laps.items() if name not in PASSES)

    @property
    def least(self) -> float:
        """Least seconds of host work on a GPU: what is beside the passes, and a launch for each operation."""
        return self.beside + LAUNCH * self.counts["operations"]

    @property
    def arithmetic(self) -> float:
        """Seconds that an H100 needs for products; float32's convolutions run in TF32."""
        peaks, precision = memory.CARDS["H100"].peaks, self.stage.precision
        convolutions = peaks["tf32" if precision == "float32" else precision]
        whole = self.counts["convolutions"] / convolutions + self.counts["products"] / peaks[precision]
        return whole / EFFICIENCY

    @property
    def memory(self) -> float:
        """Seconds that an H100's memory needs for all inputs and outputs, unfused."""
        return self.counts["moved"] / BANDWIDTH


def measure(stage: Stage) -> Measured:
    """Measures one step."""
    laps = _timed(stage)
    counts, peak, activations = _combined(stage, _counted)
    copied = _combined(stage, _copied)[0]
    if stage.narrow:
        counts, peak, activations = _at_full_width(counts)
    return Measured(stage=stage, laps=laps, counts=counts | copied, peak=peak, activations=activations)


def _timed(stage: Stage) -> dict[str, float]:
    laps = Laps()
    with _device(stage) as device, Meter(device, laps.cut, laps) as meter:
        stage.run(meter, stage.repeats)
    return laps.best()


@contextlib.contextmanager
def _device(stage: Stage) -> Iterator[str]:
    """The device of host work: meta, or the CPU for a narrow model."""
    if stage.narrow:
        yield "cpu"
        return
    with meta_as_gpu(), autocast("bfloat16" if stage.precision == "bfloat16" else "float32"):
        yield "meta"


def _combined(stage: Stage, count: Callable[..., tuple[Counts, float, float]]) -> tuple[Counts, float, float]:
    """Weighted sum of the counts of a stage's shorter runs, and the largest of their peaks."""
    runs = [(weight, *count(stage, run)) for weight, run in stage.counted or [(1, stage.run)]]
    summed = {name: math.fsum(weight * counts[name] for weight, counts, *_ in runs) for name in runs[0][1]}
    return summed, max(run[2] for run in runs), max(run[3] for run in runs)


def _counted(stage: Stage, run: Callable[[Meter, int], None]) -> tuple[Counts, float, float]:
    """Counts of the last step, its peak, and the peak above what is alive before it."""
    seen: list[Counts] = []
    before = [0]
    counter = FlopCounterMode(display=False)

    def tick() -> None:
        if not seen:
            before[0] = live.peak = live.now
        seen.append(_snapshot(done, counter))

    with contextlib.ExitStack() as stack:
        device = stack.enter_context(_device(stage))
        done, live = stack.enter_context(Operations(device)), stack.enter_context(LiveBytes())
        stack.enter_context(counter)
        run(stack.enter_context(Meter(device, tick)), 1)
    return _difference(seen), live.peak, live.peak - before[0]


def _snapshot(done: Operations, flops: FlopCounterMode) -> Counts:
    by_operator: Mapping[Any, float] = flops.get_flop_counts().get("Global", {})
    convolutions = sum(count for operator, count in by_operator.items() if "convolution" in str(operator))
    return {
        "operations": done.count,
        "moved": done.bytes,
        "convolutions": convolutions,
        "products": sum(by_operator.values()) - convolutions,
    }


def _copied(stage: Stage, run: Callable[[Meter, int], None]) -> tuple[Counts, float, float]:
    """Copies and waits of the last step, on the pretended GPU."""
    seen: list[Counts] = []
    gpu = Copies() if stage.narrow else NumberlessCopies()
    with pytest.MonkeyPatch.context() as patch:
        installed.answer(patch, gpu)
        with gpu, Meter("cuda", lambda: seen.append(dict(gpu.now()))) as meter:
            run(meter, 1)
    return _difference(seen), 0.0, 0.0


def _difference(seen: list[Counts]) -> Counts:
    before, after = seen[-2:]
    return {name: after[name] - before[name] for name in after}


def _at_full_width(counts: Counts) -> tuple[Counts, float, float]:
    """Of captions: the operations counted, and the rest from the memory model of Qwen2.5-VL-7B.

    Answers are written token by token, each of which reads all weights; activations are counted for the prefill.
    """
    footprint = memory.caption("qwen_vl:7b")
    assert footprint is not None
    sequences, tokens = 2 * narrow_qwen.PICTURES, narrow_qwen.TOKENS
    written = sequences * tokens * footprint.weights  # two operations for each parameter of two bytes
    activations = narrow_qwen.PICTURES * footprint.image
    full = {
        "moved": footprint.weights * (tokens + 1),
        "convolutions": 0.0,
        "products": sequences * footprint.flops + written,
    }
    return counts | full, footprint.bytes(narrow_qwen.PICTURES), activations
