"""Pretended GPUs as fixtures."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.devices.checks", "tests.devices.actions")

from tests.devices import installed, pretended_gpu  # noqa: E402


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pretended_gpu.PretendedGpu]:
    """`cuda` is a pretended GPU during the test."""
    with installed.install(monkeypatch) as active:
        yield active


@pytest.fixture
def numberless_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pretended_gpu.PretendedGpu]:
    """`cuda` is a pretended GPU without numbers during the test, for models at full size."""
    with installed.install(monkeypatch, numbers=False) as active:
        yield active
