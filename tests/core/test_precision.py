"""Precision of a training: torch's settings inside, and as they were outside."""

import contextlib
from collections.abc import Iterator

import pytest
import torch

from bob.core import precision

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


BACKENDS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # pyright: ignore


def read() -> list[object]:
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.fixture(params=["ieee", "tf32"])
def before(request: pytest.FixtureRequest) -> Iterator[str]:
    """What torch is set to."""
    was = read()
    for backend in BACKENDS:
        backend.fp32_precision = request.param
    yield request.param
    for backend, value in zip(BACKENDS, was, strict=True):
        backend.fp32_precision = value


@pytest.mark.parametrize(
    ("name", "products"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee"), ("float16", "ieee")]
)
def test_a_gpu_computes_as_asked_whatever_was_set_before(before, name, products):
    with contextlib.suppress(KeyError), precision.arithmetic(name, CUDA):
        assert read() == [products, "tf32"]
        raise KeyError
    assert read() == [before, before]


def test_on_a_cpu_nothing_is_set():
    before = read()
    with precision.arithmetic("tf32", CPU):
        assert read() == before


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_products_are_computed_in_the_precision(name, dtype):
    one = torch.ones(2, 2)
    with precision.autocast(name, CPU):
        assert (one @ one).dtype == dtype
