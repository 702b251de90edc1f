"""The compiled U-Net: one graph without breaks for kinds, steps and adapters, equal to the eager one up to rounding."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from bob.diffusion import checkpoints, compiled, lora, sampling
from bob.diffusion.attention import DrawingAttention
from bob.diffusion.compiled import CompiledUnet
from bob.diffusion.image_generator import ImageGenerator
from tests.devices import actions

pytestmark = pytest.mark.timeout(300)
QUICK: Any = "aot_eager"
"""A backend that traces as the real one does, and computes with torch's own kernels."""


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def load(*, fused: bool = False) -> tuple[Any, DrawingAttention]:
    made = checkpoints.load("skyworld", device=torch.device("cpu"), dtype=torch.float32)
    return made, DrawingAttention(made.unet, fused=fused)


def count(unet: CompiledUnet, rows: list[int]) -> None:
    """Notes the rows of each evaluation of the graph."""
    graph = unet._graph
    unet._graph = lambda *inputs: rows.append(len(inputs[0])) or graph(*inputs)


def latents(made: Any, images: int = 2, **fields: Any) -> torch.Tensor:
    requests = [actions.request(k, **fields) for k in range(images)]
    return sampling.latents(made, requests, sampling.Sources(made, actions.picture))


def fuse(adapter: int, *pipelines: Any) -> None:
    """Adds a LoRA, another for each number; that before stays."""
    files = actions.adapters()["LoRA"][lora.FILE]
    for made in pipelines:
        for _ in range(adapter):
            lora.fuse(made, files)


def assert_one_graph() -> None:
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize(("fused", "kinds"), [(False, [*actions.KINDS]), (True, ["text2img"])])
def test_one_graph_serves_all_kinds_steps_adapters_and_batches(fused, kinds):
    (stock, own), (ours, kept) = load(), load(fused=fused)
    unet, rows = CompiledUnet(ours.unet, backend=QUICK), list[int]()
    count(unet, rows)
    unet.expect(6, required=True)
    drawn: dict[Any, torch.Tensor] = {}
    for adapter in (0, 1, 2):
        fuse(adapter, stock, ours)
        for name in kinds if adapter < 2 else kinds[:1]:
            for images in (3, 2):  # of these 2 the rows are filled up
                given = drawn[adapter, name, images] = latents(ours, images, **actions.KINDS[name])
                wanted = latents(stock, images, **actions.KINDS[name])
                torch.testing.assert_close(given, wanted, atol=1e-3, rtol=1e-3)
                for each in (unet, kept, own):
                    each.clear()
    assert set(rows) == {6}
    assert_one_graph()
    assert not torch.allclose(drawn[0, "text2img", 3], drawn[1, "text2img", 3], atol=1e-2)


def test_half_the_rows_and_fewer_are_left_to_the_unets_own_pass():
    (stock, _), (ours, _) = load(), load()
    unet, rows = CompiledUnet(ours.unet, backend=QUICK), list[int]()
    count(unet, rows)
    for most, images in ((4, 1), (0, 2), (2, 2)):  # a half, nothing to compile, more than expected
        unet.expect(most, required=True)
        assert torch.equal(latents(ours, images), latents(stock, images))
    assert rows == []


def test_what_is_not_required_waits_until_it_is_worth_it(monkeypatch):
    monkeypatch.setattr(compiled, "WORTH", 5)
    ours, _ = load()
    unet, rows = CompiledUnet(ours.unet, backend=QUICK), list[int]()
    count(unet, rows)
    unet.expect(4, required=False)
    latents(ours, scheduler="ddim", steps=5)
    assert rows == []
    latents(ours, scheduler="ddim", steps=2)
    assert rows == [4, 4]


def test_a_compiler_that_fails_is_noted_and_raises_only_where_it_is_required(monkeypatch):
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled, "WORTH", 0)
    (stock, _), (ours, _) = load(), load()
    unet = CompiledUnet(ours.unet, backend=broken)
    unet.expect(4, required=False)
    assert torch.equal(latents(ours), latents(stock))
    note = unet.note()
    assert "the U-Net is not compiled" in note
    assert "no compiler" in note
    assert unet.note() == ""
    unet.expect(4, required=True)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot compile the U-Net .*no compiler.*: install a C\+\+ compiler, or"):
            latents(ours)


def test_memory_that_runs_out_while_compiling_is_no_fault_of_the_compiler(monkeypatch):
    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    ours, _ = load()
    unet = CompiledUnet(ours.unet, backend=full)
    unet.expect(4, required=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        latents(ours)
    assert unet.note() == ""
    latents(ours, 1)


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_cpu_compiles_only_when_told_to(choice):
    generator = ImageGenerator("cpu")
    generator.use("skyworld", "", dict)
    generator.start([actions.request(0)], batch=1, compile_=choice)
    assert generator._compiled is None


@pytest.mark.slow
def test_the_real_compiler_draws_the_same_pictures_with_one_graph_for_all_adapters():
    files, (eager, ours) = actions.adapters(), (ImageGenerator("cpu"), ImageGenerator("cpu"))
    requests = [actions.request(k) for k in range(5)]  # of 3 and 2
    for name in ("", "LoRA", "both", ""):
        found = []
        for generator, choice in ((eager, "off"), (ours, "on")):
            generator.use("skyworld", name, lambda name=name: files[name])
            rows, rejected = generator.start(requests, batch=3, compile_=choice).rows(generator.times)
            assert not rejected
            found.append(actions.pictures(rows))
        assert np.abs(found[0] - found[1]).max() <= 1
    assert_one_graph()
