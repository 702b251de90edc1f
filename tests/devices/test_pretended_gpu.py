"""All work of the steps on a pretended GPU: devices, dtypes, the CPU's results, and no wait inside a step."""

import numpy as np
import pytest
import torch

from bob.core.memory import MicroBatch
from bob.diffusion import micro_batches, sampling
from bob.diffusion.image_generator import ImageGenerator
from tests.devices import actions, checks
from tests.devices.pretended_gpu import GpuTensor

MINIS = ("resnet_mini", "clip_mini", "mae_mini")


# -- the pretended GPU itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "operation"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: bool(x.sum() > 0), "_local_scalar_dense"),
        (lambda x: int(x[0, 0]), "_local_scalar_dense"),
        (lambda x: float(x.mean()), "_local_scalar_dense"),
        (lambda x: f"{x.mean():.3f}", "_local_scalar_dense"),
        (lambda x: range(9)[x[0, 0].long()], "_local_scalar_dense"),
        (lambda x: torch.arange(9)[x[0, 0].long()], "_local_scalar_dense"),
        (lambda x: [torch.arange(9)[k] for k in x[0, :1].long()], "_local_scalar_dense"),
        (lambda x: int(x.max(0).indices[0]), "_local_scalar_dense"),
        (lambda x: x.cpu(), "cpu"),
        (lambda x: x.to("cpu"), "to"),
        (lambda x: x.to(torch.zeros(())), "to"),
        (lambda x: torch.zeros(2, 2).copy_(x), "copy_"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.where(x > 0), "nonzero"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_a_wait_is_noted_where_it_happens(gpu, do, operation, inference):
    with torch.inference_mode(inference):
        do(torch.ones(2, 2, device="cuda"))
    (wait,) = gpu.waits
    assert wait.operation == operation
    assert wait.place.startswith("tests/devices/test_pretended_gpu.py:")
    gpu.require({"<lambda>": 1})
    with pytest.raises(AssertionError, match=rf"waits for the GPU: {operation} at tests.* in <lambda>"):
        gpu.require({})


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x + torch.tensor(1.0),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.masked_fill(x > 0, 2.0),
        lambda x: x.__setitem__(x > 0, 2.0),
        lambda x: torch.ones(2, 2).to(x),
        lambda x: x.to(torch.float16),
        lambda x: torch.where(x > 0, x, 0.0).sum(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.zeros(3)[1].item(),
        lambda x: (x.shape, x.dtype, len(x), x.is_cuda, x.device),
    ],
)
def test_what_does_not_wait_is_not_noted(gpu, do):
    do(torch.ones(2, 2, device="cuda"))
    assert gpu.waits == []


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda x: x + torch.zeros(2), "cuda:0 and cpu"),
        (lambda x: torch.cat([x, torch.zeros(1, 2)]), "cuda:0 and cpu"),
        (lambda x: torch.stack([x[0, 0], torch.tensor(0.0)]), "cuda:0 and cpu"),
        (lambda x: torch.nn.Linear(2, 2)(x), "cuda:0 and cpu"),
        (lambda x: torch.nn.functional.embedding(torch.zeros(1, dtype=torch.long), x), "cuda:0 and cpu"),
        (lambda x: torch.zeros(2)[x[0].long()], "indices should be"),
        (lambda x: x.numpy(), "to numpy"),
        (lambda x: np.asarray(x), "to numpy"),
        (lambda x: torch.randn(2, generator=torch.Generator(), device="cuda"), "for generator"),
        (lambda x: torch.nn.Linear(2, 2, dtype=torch.float16, device="cuda")(x), "dtype"),
    ],
)
def test_what_a_gpu_refuses_raises(gpu, do, words):
    with pytest.raises((RuntimeError, TypeError), match=words):
        do(torch.ones(2, 2, device="cuda"))


def test_training_on_it_gives_the_numbers_of_the_cpu(gpu):
    def trained(device: str) -> torch.nn.Module:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            inside = torch.utils.checkpoint.checkpoint(model[:2], torch.ones(2, 3, device=device), use_reentrant=False)
            model[2](inside).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return model

    with torch.random.fork_rng(devices=[]):
        ours, theirs = trained("cuda"), trained("cpu")
    assert gpu.waits == []
    assert all(isinstance(parameter, GpuTensor) and parameter.grad.is_cuda for parameter in ours.parameters())
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-6)


# -- drawing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", actions.KINDS)
def test_draws(gpu, kind):
    checks.drawing(gpu, kind)


def test_latents_are_float16_on_the_gpu(gpu):
    generator = actions.ready("cuda")
    requests = [actions.request(0)]
    noise = sampling.initial_noise(generator._pipeline, requests)
    drawn = sampling.latents(generator._pipeline, requests, sampling.Sources(generator._pipeline))
    for tensor in (noise, drawn):
        assert tensor.is_cuda
        assert tensor.dtype == torch.float16


def test_adapters_are_swapped(gpu):
    adapters, generator, control = actions.adapters(), ImageGenerator("cuda"), ImageGenerator("cpu")

    def drawn(by: ImageGenerator, name: str) -> np.ndarray:
        by.use("skyworld", name, lambda: adapters[name])
        gpu.waits.clear()
        rows = actions.draw(by, prompt=f"a {actions.WORD.name} aircraft", steps=2)
        gpu.require(checks.BATCH)
        return actions.pictures(rows)

    found = {}
    for name in ("", "LoRA", "word", "both"):
        found[name] = drawn(generator, name)
        assert checks.on_gpu(generator), name
    checks.alike(found["both"], drawn(control, "both"))
    assert np.array_equal(drawn(generator, ""), found[""]), "the clean weights are not restored"
    assert len({picture.tobytes() for picture in found.values()}) == 4


def test_clip_scores(gpu):
    checks.scoring(gpu)


# -- fine-tuning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", actions.TUNINGS)
def test_finetunes(gpu, tuning):
    checks.finetune(gpu, tuning)


@pytest.mark.parametrize("tuning", ["LoRA", "words"])
def test_finetunes_with_gradient_checkpointing(gpu, monkeypatch, tuning):
    chosen = []

    def smallest(*_: object, **__: object) -> MicroBatch:
        chosen.append(MicroBatch(images=1, checkpointing=True))
        return chosen[0]

    monkeypatch.setattr(micro_batches.memory, "micro_batch", smallest)
    monkeypatch.setattr(micro_batches, "_known", {})
    checks.finetune(gpu, tuning)
    assert chosen


# -- classifiers, features, captions -----------------------------------------------------------------


@pytest.mark.parametrize("name", MINIS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_trains_and_evaluates(gpu, name, precision):
    checks.training(gpu, name, precision)


@pytest.mark.parametrize("name", ["resnet50", "mae_vit_b16", "clip_vit_b16"])
def test_augments_at_full_size(gpu, name):
    checks.augmentation(gpu, name)


@pytest.mark.parametrize("name", MINIS)
def test_extracts_features(gpu, name):
    checks.embedding(gpu, name)


def test_captions_and_recognises(gpu):
    checks.captions(gpu)
