"""The pretended GPU as a fixture."""

from collections.abc import Iterator

import pytest

from tests.devices import pretended_gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pretended_gpu.PretendedGpu]:
    """`cuda` is a pretended GPU during the test."""
    with pretended_gpu.install(monkeypatch) as active:
        yield active
