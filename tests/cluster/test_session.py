"""Answers of a unit's process: a process that has lost its GPU ends, and what is a failure, a mistake or neither."""

import subprocess
import sys
import textwrap

import pytest
import torch

from bob.cluster.session import CROWDED, attempt, received
from bob.core import batching
from bob.core.types import Receipt, Unit
from bob.steps import workers
from bob.store import Store

UNIT = Unit(step="classify", target="results/x.parquet", label="x", size=1)
LOST = "CUDA error: unspecified launch failure"


def broken(error: Exception):
    """A worker that raises."""

    def work(unit: Unit, **options: object) -> Receipt:
        raise error

    return work


def run(error: str) -> subprocess.CompletedProcess[str]:
    """A process in which a worker raises this."""
    script = f"""
        import torch
        from bob.cluster.session import attempt
        from bob.core.types import Unit

        def work(unit):
            raise {error}

        print("answer", attempt(work, Unit(step="classify", target="x", label="x", size=1)))
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)


def test_a_process_that_has_lost_its_gpu_ends() -> None:
    """Ray then starts the unit in another, which is not the job's end."""
    ended = run(f'torch.AcceleratorError("{LOST}")')
    assert ended.returncode == 70
    assert not ended.stdout
    assert LOST in ended.stderr


def test_a_process_with_any_other_error_goes_on() -> None:
    ended = run('RuntimeError("mat1 and mat2 shapes cannot be multiplied")')
    assert ended.returncode == 0
    assert "'failure': 'Traceback" in ended.stdout


def test_a_gpu_whose_memory_ran_out_is_not_lost() -> None:
    """CUDA itself says so by the same class, where torch's allocator was not asked."""
    assert batching.is_lost_device(torch.AcceleratorError(LOST))
    assert not batching.is_lost_device(torch.AcceleratorError("CUDA error: out of memory"))
    assert not batching.is_lost_device(torch.OutOfMemoryError("CUDA out of memory"))
    assert not batching.is_lost_device(RuntimeError(LOST))


def test_inline_a_lost_gpu_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workers.WORKERS, "classify", lambda root, device: broken(torch.AcceleratorError(LOST)))
    with pytest.raises(torch.AcceleratorError, match=LOST):
        list(workers.inline("cpu")("classify", [UNIT], Store("/nowhere")))


def test_want_of_memory_beside_others_is_neither_a_mistake_nor_a_failure() -> None:
    answer = attempt(broken(batching.CrowdedOut("out of memory")), UNIT)
    assert answer == {"target": UNIT.target, CROWDED: "out of memory"}
    with pytest.raises(ValueError, match="a mistake"):
        received(attempt(broken(ValueError("a mistake")), UNIT))
    with pytest.raises(RuntimeError, match="a fault"):
        received(attempt(broken(RuntimeError("a fault")), UNIT))
