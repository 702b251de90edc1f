"""Measurement of a rehearsed unit: time, operations and memory, and the peak of the device."""

import contextlib
import functools
import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bob.commands.rehearsed import is_of
from bob.core import memory

__all__ = ["Peak", "Rounds", "device_name", "one_thread", "peak"]


class Rounds:
    """Rounds of equal work: the first warm up, the last of these counts operations, all others are timed.

    Used as a context; `tick` ends a round.
    """

    def __init__(self, device: str, *, seconds: float, counted: int = 2) -> None:
        """Begins the first round.

        Args:
            device: torch's name of the device.
            seconds: least time of all timed rounds together.
            counted: number of the round that counts operations: 1, or 2 where the first does more than later ones.
        """
        self._device, self._least, self._counted = device, seconds, counted
        self._counter, self._counting = _counter(), contextlib.ExitStack()
        self._count, self._since = 0, 0.0
        self.work = 0.0
        """Work of the timed rounds."""
        self.seconds = 0.0
        """Time of the timed rounds."""
        self.flops = 0.0
        """Floating-point operations of one unit of work."""

    def __enter__(self) -> "Rounds":
        if self._counted == 1:
            self._counting.enter_context(self._counter)
        return self

    def __exit__(self, *_: object) -> None:
        self._counting.close()

    def tick(self, work: float) -> bool:
        """Ends a round of this much work; returns whether all rounds are done."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        self._count += 1
        if self._count == self._counted - 1:
            self._counting.enter_context(self._counter)
        elif self._count == self._counted:
            self._counting.close()
            self.flops, self._since = self._counter.get_total_flops() / work, time.monotonic()
        elif self._count > self._counted:
            self.work += work
            self.seconds = time.monotonic() - self._since
        return self._count > self._counted and self.seconds >= self._least


def _counter() -> FlopCounterMode:
    """Counts attention on a CPU too, which torch's table leaves out."""
    aten: Any = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: functools.partial(_attention, passes=2),
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )


def _attention(query: Any, key: Any, *_: Any, passes: int, **__: Any) -> int:
    """Operations of `passes` products of the size of query times key, from shapes (b, heads, length, width)."""
    batch, heads, length, width = query
    return 2 * passes * batch * heads * length * key[2] * width


def _attention_backward(gradient: Any, query: Any, key: Any, *_: Any, **__: Any) -> int:
    return _attention(query, key, passes=5)


class Peak:
    """Peak memory inside the context: of a GPU what torch allocates, on a CPU the resident set of the process."""

    _EVERY = 0.02  # seconds between two looks at the resident set

    def __init__(self, device: str) -> None:
        self._device, self._ended = device, threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.bytes = 0
        """Known after the context."""

    def __enter__(self) -> "Peak":
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.init()  # without, there are no statistics to reset
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.startswith("cuda"):
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self._ended.set()
            self._sampler.join()
            self.bytes = max(self.bytes, _resident())

    def _sample(self) -> None:
        while True:
            self.bytes = max(self.bytes, _resident())
            if self._ended.wait(self._EVERY):
                return


def _resident() -> int:
    """Bytes of the process in memory; where there is no /proc, the largest number so far."""
    import resource

    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_name(device: str) -> str:
    """`cpu`, or the name that a GPU gives itself."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


@functools.cache
def peak(device: str, precision: str) -> float:
    """FLOP/s of a device: of a GPU from its data sheet, 0 for an unknown one; of a CPU measured on a matrix product."""
    if device.startswith("cuda"):
        name = device_name(device)
        cards = (card for card in memory.CARDS.values() if is_of(name, card.name))
        return next((card.peaks.get(precision, 0.0) for card in cards), 0.0)
    side = 1024
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
    one = torch.ones(side, side, dtype=dtype)
    product = one @ one
    times = []
    for _ in range(5):
        start = time.monotonic()
        torch.mm(one, one, out=product)
        times.append(time.monotonic() - start)
    return 2 * side**3 / min(times)


@contextlib.contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Context in which torch has one thread on a CPU, as each of `bob plan --cluster 8xcpu`."""
    before = torch.get_num_threads()
    if not device.startswith("cuda"):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
