"""Invariance of all steps' results to the number of cores: torch's default is a thread a core."""

import dataclasses
from collections.abc import Iterator

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from bob import pipeline
from bob.core.settings import Run
from bob.core.types import Unit
from bob.steps import classify, finetune, workers
from bob.store import Store

DEFAULTS = (1, 2, 3)
"""torch's threads as it starts on machines of so many cores, or with this OMP_NUM_THREADS."""


@pytest.fixture(params=DEFAULTS)
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """A machine with so many cores, as torch sees it."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def seen() -> dict[str, object]:
    """What the first machine made."""
    return {}


def classifier(base: Run, local: Store) -> tuple[Unit, pa.Table]:
    """One sweep training on pictures enough for torch to divide their sums."""
    run = dataclasses.replace(base, method="real_only", shots=4, sweep=dataclasses.replace(base.sweep, sweep_epochs=3))
    unit = classify.sweep(pipeline.split(run, local))[0]
    assert len(list(workers.inline("cpu")("classify", [unit], local))) == 1
    return unit, local.read_table(unit.target)


def test_a_classifier_has_the_same_bits_on_any_number_of_cores(base, local, cores, seen):
    _, table = classifier(base, local)
    assert table.equals(seen.setdefault("classifier", table))
    assert torch.get_num_threads() == cores  # as it was, for whoever calls bob


def test_an_adapter_has_the_same_bits_on_any_number_of_cores(base, local, cores, seen):
    unit = finetune.unit(pipeline.split(base, local))
    assert unit is not None
    assert len(list(workers.inline("cpu")("finetune", [unit], local))) == 1
    adapter = load_file(f"{local.root}/{unit.target.rpartition('/')[0]}/pytorch_lora_weights.safetensors")
    wanted = seen.setdefault("adapter", adapter)
    assert isinstance(wanted, dict)
    assert all(torch.equal(value, wanted[name]) for name, value in adapter.items())
