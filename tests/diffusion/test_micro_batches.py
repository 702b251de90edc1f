"""Micro-batches and processes of a fine-tune: whatever fits into memory, the same adapter comes out."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from bob import datasets
from bob.core.memory import MicroBatch
from bob.core.settings import FinetuneSettings
from bob.core.types import Token, Tuning
from bob.diffusion import checkpoints, micro_batches
from bob.diffusion.training import Callbacks, Pairs, adapter, train

SETTINGS = FinetuneSettings(total_steps=5, batch=5, lr=4e-3, warmup_steps=1, rank=2, checkpoint_every=2)
WORDS = tuple(Token(name=f"<class_{k}>", begins_as="Heron") for k in range(3))
TUNINGS = {
    "lora": Tuning(),
    "words": Tuning(unet=False, text_encoder=False, tokens=WORDS, schedule="constant", flip=True),
    "both": Tuning(text_encoder=False, tokens=WORDS, schedule="constant", side=16),
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "_known", {})


def fresh(checkpoint: str) -> StableDiffusionPipeline:
    return checkpoints.load(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


def pairs(count: int = 6, *, side: int = 32) -> Pairs:
    """Pictures of noise, half of them not square."""
    rng = np.random.default_rng(0)
    sizes = [(side, side + 8 * (k % 2), 3) for k in range(count)]
    images = [Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)) for size in sizes]
    return Pairs(images, [f"a photo of a <class_{k % 3}> Teal" for k in range(count)])


def made(checkpoint: str, tuning: Tuning, *, state: bytes | None = None, **changes: Any) -> dict[str, Tensor]:
    """Tensors of the adapter that a fine-tune makes."""
    callbacks = Callbacks(**{name: changes.pop(name) for name in ("save", "tell") if name in changes})
    data, settings = changes.pop("data", pairs()), dataclasses.replace(SETTINGS, **changes)
    pipeline = fresh(checkpoint)
    train(pipeline, data, settings=settings, seed=0, tuning=tuning, state=state, callbacks=callbacks)
    return loaded(adapter(pipeline, tuning))


def loaded(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Tensors of an adapter's files."""
    return {f"{file}:{name}": tensor for file, content in files.items() for name, tensor in load(content).items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Greatest relative distance of a tensor of two adapters."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / one[name].norm()) for name in one)


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_the_size_of_a_micro_batch_changes_the_order_of_sums_only(untrained_sd, tuning):
    checkpoint = f"path:{untrained_sd}"
    whole = made(checkpoint, tuning)
    assert apart(whole, made(checkpoint, tuning, micro_batch=5)) == 0
    for size in (1, 3):
        assert 0 < apart(whole, made(checkpoint, tuning, micro_batch=size)) < 1e-5


def as_a_whole(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Relative distance of two adapters, each taken as one vector."""
    whole, rest = (torch.cat([adapter[name].flatten() for name in sorted(adapter)]) for adapter in (one, other))
    return float((whole - rest).norm() / whole.norm())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_steps_in_micro_batches_of_1_7_25_and_the_whole_batch():
    dataset, mini = datasets.load("skyworld:0.8"), checkpoints.CHECKPOINTS["skyworld"].finetune
    shots = [shot for shot in dataset.split(shots=5, val=1, seed=0) if shot.split == "train"]
    data = Pairs([dataset.open(shot) for shot in shots], [f"a aircraft photo of a {shot.class_name}" for shot in shots])
    settings: dict[str, Any] = dataclasses.asdict(dataclasses.replace(mini, total_steps=50, batch=26))
    whole = made("skyworld", Tuning(), data=data, **settings)
    for size in (25, 7, 1):
        split = made("skyworld", Tuning(), data=data, **settings | {"micro_batch": size})
        assert 0 < as_a_whole(whole, split) < 1e-5
        assert apart(whole, split) < 1e-4  # a tensor of small norm may be rounded more


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_a_resumed_fine_tune_may_take_another_micro_batch(untrained_sd, tuning):
    checkpoint, states = f"path:{untrained_sd}", dict[int, bytes]()
    whole = made(checkpoint, tuning, save=states.__setitem__)
    told: list[str] = []
    resumed = made(checkpoint, tuning, state=states[2], micro_batch=2, tell=told.append)
    assert told == ["micro-batches of 2 of 5 images", *told[1:]]
    assert not any("state" in words for words in told)
    assert apart(whole, resumed) < 1e-5
    assert apart(whole, made(checkpoint, tuning, state=states[2])) == 0


def out_of_memory(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over more than `most` images exhausts memory."""
    attend: Callable[..., Tensor] = torch.nn.functional.scaled_dot_product_attention

    def small(query: Tensor, *others: Any, **options: Any) -> Tensor:
        if len(query) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return attend(query, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", small)


def test_where_memory_runs_out_micro_batches_are_halved(untrained_sd, monkeypatch):
    checkpoint, told = f"path:{untrained_sd}", list[str]()
    wanted = made(checkpoint, Tuning(), micro_batch=2)
    out_of_memory(2, monkeypatch)
    assert apart(wanted, made(checkpoint, Tuning(), tell=told.append)) == 0
    assert [line for line in told if "memory" in line] == [
        "out of memory, so micro-batches of 2 of 5 images from here on"
    ]
    later: list[str] = []
    made(checkpoint, Tuning(), tell=later.append)  # in the same process
    assert later[0] == "micro-batches of 2 of 5 images"
    assert not any("out of memory" in line for line in later)


def test_gradients_of_a_pass_that_failed_half_way_are_dropped(untrained_sd, monkeypatch):
    checkpoint = f"path:{untrained_sd}"
    wanted, failed = made(checkpoint, Tuning(), micro_batch=2), []
    backward = Tensor.backward

    def failing(self: Tensor, *args: Any, **options: Any) -> None:
        backward(self, *args, **options)
        if not failed:
            failed.append(True)
            raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(Tensor, "backward", failing)
    assert apart(wanted, made(checkpoint, Tuning())) == 0
    assert failed


def test_one_image_is_checkpointed_before_the_fine_tune_gives_up(untrained_sd, monkeypatch):
    checkpoint = f"path:{untrained_sd}"
    wanted = made(checkpoint, Tuning(), micro_batch=1)
    attend, calls, told = torch.nn.functional.scaled_dot_product_attention, [], list[str]()

    def failing(*args: Any, **options: Any) -> Tensor:
        calls.append(True)
        if len(calls) == 1:
            raise MemoryError
        return attend(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", failing)
    assert apart(wanted, made(checkpoint, Tuning(), micro_batch=1, tell=told.append)) == 0
    assert "1 of 5 images, with gradient checkpointing" in told[1]


def test_an_image_that_does_not_fit_ends_in_one_sentence_with_the_numbers(monkeypatch):
    out_of_memory(0, monkeypatch)
    with pytest.raises(
        ValueError, match=r"even at 1 image with gradient checkpointing, of about \d+\.\d GB in all"
    ) as e:
        made("skyworld", Tuning())
    assert "Tried to allocate 2.00 GiB" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_gradient_checkpointing_changes_no_bit(untrained_sd, tuning, monkeypatch):
    attend, calls = torch.nn.functional.scaled_dot_product_attention, list[bool]()

    def counting(*args: Any, **options: Any) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return attend(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    plain, once = made(f"path:{untrained_sd}", tuning), len(calls)
    checkpointed = MicroBatch(images=5, checkpointing=True)
    monkeypatch.setattr(micro_batches.MicroBatches, "_chosen", lambda self: checkpointed)
    assert apart(plain, made(f"path:{untrained_sd}", tuning)) == 0
    assert len(calls) - once > 1.3 * once  # attention is recomputed in the backward pass
