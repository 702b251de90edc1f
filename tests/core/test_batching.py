"""Batches that shrink when memory runs out, and rows that are rejected one by one."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bob.core.batching import AdaptiveBatcher, is_out_of_memory
from tests.paths import ROOT

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
every_kind = pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError(ALLOCATOR),
        RuntimeError("CUDA error: out of memory"),
    ],
)


class Small:
    """Doubles numbers, as long as there are few enough at once and none of them is bad; notes how many came."""

    def __init__(self, holds: int, error: Exception | None = None, bad: Sequence[int] = ()) -> None:
        self.holds, self.error, self.bad = holds, error or torch.OutOfMemoryError("no room"), bad
        self.sizes: list[int] = []

    def __call__(self, rows: Sequence[int]) -> list[int]:
        self.sizes.append(len(rows))
        if len(rows) > self.holds:
            raise self.error
        if met := [row for row in rows if row in self.bad]:
            raise KeyError(met[0])
        return [2 * row for row in rows]


@every_kind
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(error):
    batches, small = AdaptiveBatcher("doubling"), Small(3, error)
    assert list(chain.from_iterable(batches.map(range(9), small, size=12))) == list(range(0, 18, 2))
    assert small.sizes == [9, 4, 2, 2, 2, 2, 1]
    assert batches.note() == "out of memory, so doubling 2 at once from here on"
    small.sizes.clear()
    assert list(chain.from_iterable(batches.map(range(5), small, size=12))) == [0, 2, 4, 6, 8]
    assert small.sizes == [2, 2, 1]
    assert batches.note() == ""


@every_kind
def test_where_not_even_one_fits_it_says_what_to_do(error):
    batches = AdaptiveBatcher("doubling")
    with pytest.raises(ValueError, match=r"doubling runs out of memory even one at a time \(.+\): use a smaller"):
        list(batches.map(range(4), Small(0, error), size=4))
    with pytest.raises(ValueError, match="runs out of memory"):
        batches.each(range(4), Small(0, error), size=4)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes differ"), KeyError("out of memory")])
def test_what_is_no_lack_of_memory_is_raised_at_once(error):
    small = Small(1, error)
    with pytest.raises(type(error)) as caught:
        list(AdaptiveBatcher("doubling").map(range(4), small, size=4))
    assert caught.value is error
    assert small.sizes == [4]
    assert not is_out_of_memory(error)


@given(
    count=st.integers(0, 12),
    size=st.integers(1, 15),
    holds=st.integers(1, 15),
    bad=st.sets(st.integers(0, 15), max_size=6),
)
@settings(deadline=None, max_examples=30)
def test_each_row_gets_its_own_answer_or_its_own_error(count, size, holds, bad):
    if count > 1 and bad >= set(range(count)):
        return
    rows = range(count)
    made = AdaptiveBatcher("doubling").each(rows, Small(holds, bad=sorted(bad)), size=size)
    assert [one.args[0] if isinstance(one, KeyError) else one for one in made] == [
        row if row in bad else 2 * row for row in rows
    ]


def test_good_batches_are_done_once():
    small = Small(4, bad=[5])
    assert isinstance(AdaptiveBatcher("doubling").each(range(12), small, size=4)[5], KeyError)
    assert small.sizes == [4, 4, 1, 1, 1, 1, 4]


def test_what_is_raised_over_every_row_is_no_rows_fault():
    with pytest.raises(KeyError):
        AdaptiveBatcher("doubling").each(range(3), Small(9, bad=range(3)), size=2)
    (alone,) = AdaptiveBatcher("doubling").each([1], Small(9, bad=[1]), size=2)
    assert isinstance(alone, KeyError)


@pytest.mark.parametrize("error", [ImportError("no such library"), ConnectionError("gone"), torch.AcceleratorError()])
def test_setup_and_devices_are_no_rows_fault(error):
    small = Small(1, error)
    with pytest.raises(type(error)):
        AdaptiveBatcher("doubling").each(range(4), small, size=2)
    assert small.sizes == [2]


REAL = """
import resource
import numpy as np
import torch
from bob.core.batching import AdaptiveBatcher
torch.set_num_threads(1)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (360 << 20),) * 2)
for allocate in (lambda size: torch.empty(size, dtype=torch.uint8), lambda size: np.ones(size, np.uint8), bytearray):
    sizes, batches = [], AdaptiveBatcher("allocating")
    def do(rows):
        sizes.append(len(rows))
        allocate(len(rows) * (48 << 20))
        return rows
    done = [list(rows) for rows in batches.map(range(10), do, size=16)]
    print(sizes, sum(done, []) == list(range(10)))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is set by Linux's count of pages")
def test_a_real_lack_of_memory_is_survived():
    """48 MiB a row where 360 are left: batches of 10 do not fit, those of 5 do."""
    done = subprocess.run([sys.executable, "-c", REAL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["[10, 5, 5] True"] * 3
