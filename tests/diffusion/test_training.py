"""LoRA fine-tuning on an untrained mini Stable Diffusion: recipe, determinism, resuming."""

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bob.core.settings import FinetuneSettings
from bob.core.types import Tuning
from bob.diffusion import checkpoints, lora
from bob.diffusion.batches import Batches
from bob.diffusion.training import Callbacks, Pairs, train

WORDS = ("Osprey", "Heron", "Teal", "Stork", "Ibis")


@pytest.fixture
def pipeline(untrained_sd: Path) -> StableDiffusionPipeline:
    return fresh(untrained_sd)


def fresh(folder: Path) -> StableDiffusionPipeline:
    return checkpoints.load(f"path:{folder}", device=torch.device("cpu"), dtype=torch.float32)


def settings(**changes: Any) -> FinetuneSettings:
    fields: dict[str, Any] = {"epochs": 4, "batch": 2, "lr": 1e-2, "warmup_steps": 2, "rank": 2, "checkpoint_every": 1}
    return FinetuneSettings(**fields | changes)


def pairs(count: int = 3, *, size: tuple[int, int] = (32, 32)) -> Pairs:
    """Pictures of noise, each another."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]
    return Pairs(images, [f"a aircraft photo of a {WORDS[k]}" for k in range(count)])


def trained(pipeline: StableDiffusionPipeline, data: Pairs, *, seed: int = 0, **options: Any) -> bytes:
    """The adapter that a fine-tune makes."""
    callbacks = Callbacks(**{name: options.pop(name) for name in ("save", "tell") if name in options})
    train(pipeline, data, settings=options.pop("settings", settings()), seed=seed, callbacks=callbacks, **options)
    return lora.serialize(pipeline.unet, pipeline.text_encoder)


def test_the_same_seed_gives_the_same_bits_and_another_one_others(untrained_sd):
    one, again = (trained(fresh(untrained_sd), pairs()) for _ in range(2))
    assert one == again
    assert one != trained(fresh(untrained_sd), pairs(), seed=1)


@pytest.mark.parametrize("size", [(32, 32), (50, 32)])
def test_interrupted_and_resumed_is_uninterrupted(untrained_sd, size):
    states: dict[int, bytes] = {}
    wanted = trained(fresh(untrained_sd), pairs(size=size), save=states.__setitem__)
    assert sorted(states) == list(range(1, 8))  # 4 epochs of 3 pairs in twos; the last state is the adapter
    for step in (1, 3, 7):
        later: dict[int, bytes] = {}
        made = trained(fresh(untrained_sd), pairs(size=size), state=states[step], save=later.__setitem__)
        assert made == wanted
        assert sorted(later) == list(range(step + 1, 8))


@pytest.mark.parametrize(
    ("count", "batch", "every"),
    [(5, 2, 5), (4, 3, 3), (3, 4, 1)],  # in the midst of an epoch, before a short batch, after each epoch
)
def test_however_often_it_is_interrupted(untrained_sd, count, batch, every):
    class Killed(BaseException):
        pass

    held: list[bytes] = []

    def save(_: int, state: bytes) -> None:
        held.append(state)
        raise Killed

    recipe = settings(batch=batch, checkpoint_every=every)
    for _ in range((recipe.steps(count) - 1) // every):
        with pytest.raises(Killed):
            trained(fresh(untrained_sd), pairs(count), settings=recipe, state=held[-1] if held else None, save=save)
    made = trained(fresh(untrained_sd), pairs(count), settings=recipe, state=held[-1], save=save)
    assert made == trained(fresh(untrained_sd), pairs(count), settings=recipe)


@pytest.mark.parametrize(
    ("change", "seed", "words"),
    [
        (lambda state: state[: len(state) // 2], 0, "damaged"),
        (lambda state: b"", 0, "damaged"),
        (lambda state: state, 1, "of another training"),
    ],
)
def test_a_state_that_cannot_be_used_is_told_of_and_left(untrained_sd, change, seed, words):
    recipe, states, told = settings(epochs=1), {}, []
    trained(fresh(untrained_sd), pairs(), settings=recipe, save=states.__setitem__)
    options = {"settings": recipe, "seed": seed}
    made = trained(fresh(untrained_sd), pairs(), state=change(states[1]), tell=told.append, **options)
    assert words in told[0]
    assert told[1].startswith("step 1 of 2")
    assert made == trained(fresh(untrained_sd), pairs(), **options)


def test_checkpoints_change_nothing(untrained_sd):
    states: dict[int, bytes] = {}
    rare = trained(fresh(untrained_sd), pairs(), settings=settings(checkpoint_every=3), save=states.__setitem__)
    assert sorted(states) == [3, 6]
    assert rare == trained(fresh(untrained_sd), pairs())


def test_warm_up_then_cosine_to_zero_at_the_last_step(pipeline):
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trained(pipeline, pairs(), settings=settings(epochs=10, warmup_steps=5))
    hook.remove()
    total, warmup = 20, 5
    assert len(rates) == total
    for step, rate in enumerate(rates):
        share = step / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
        assert rate == pytest.approx(1e-2 * share, rel=1e-6)
    assert rates[warmup] == 1e-2
    assert rates[total - 1] < 0.02 * 1e-2


def test_the_loss_falls(pipeline):
    data, told = pairs(5), []

    @torch.no_grad()
    def loss() -> float:
        """At fixed noise, by hand."""
        images = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 127.5 - 1 for i in data.images])
        generator = torch.Generator().manual_seed(7)
        latents = pipeline.vae.encode(images).latent_dist.mean * pipeline.vae.config.scaling_factor
        noise = torch.randn((4, *latents.shape), generator=generator)
        tokens = pipeline.tokenizer(list(data.prompts), padding="max_length", return_tensors="pt")["input_ids"]
        text, total = pipeline.text_encoder(tokens)[0], 0.0
        for time, drawn in zip((50, 350, 650, 950), noise, strict=True):
            kept = pipeline.scheduler.alphas_cumprod[time]
            noisy = kept.sqrt() * latents + (1 - kept).sqrt() * drawn
            total += (pipeline.unet(noisy, time, text).sample - drawn).square().mean().item()
        return total / 4

    before = loss()
    trained(pipeline, data, settings=settings(epochs=30, batch=5, rank=4, checkpoint_every=10), tell=told.append)
    assert loss() < 0.96 * before
    assert [line.partition(",")[0] for line in told] == ["step 10 of 30", "step 20 of 30"]


def test_the_base_weights_stay_as_they_were(untrained_sd, pipeline):
    trained(pipeline, pairs(), settings=settings(weight_decay=0.5))
    before = fresh(untrained_sd)
    for part in ("unet", "text_encoder", "vae"):
        held = {
            name.replace(".base_layer", ""): tensor for name, tensor in getattr(pipeline, part).state_dict().items()
        }
        assert all(torch.equal(held[name], tensor) for name, tensor in getattr(before, part).state_dict().items())


def test_global_random_state_is_left_alone(pipeline):
    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)  # a state that no fine-tune before this one has left
        before = state()
        trained(pipeline, pairs())
        assert state() == before


def test_an_epoch_shows_every_pair_once_and_not_always_in_the_same_order(pipeline):
    data, seen = pairs(5), []
    hook = pipeline.text_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].tolist()))
    trained(pipeline, data, settings=settings(epochs=3, batch=1))
    hook.remove()
    assert len(seen) == 15
    epochs = {tuple(tuple(tokens) for tokens in seen[k : k + 5]) for k in (0, 5, 10)}
    assert {len(set(epoch)) for epoch in epochs} == {5}
    assert len(epochs) > 1


def test_latents_are_drawn_from_the_posterior(untrained_sd, pipeline):
    """Not its mean: another variance gives another adapter."""
    with torch.no_grad():
        pipeline.vae.quant_conv.bias[pipeline.vae.config.latent_channels :] += 1
    assert trained(pipeline, pairs()) != trained(fresh(untrained_sd), pairs())


def encoded(pipeline: StableDiffusionPipeline, data: Pairs) -> list[np.ndarray]:
    """What the autoencoder is shown during a fine-tune, as pixels."""
    seen: list[np.ndarray] = []
    hook = pipeline.vae.encoder.register_forward_pre_hook(
        lambda _, given: seen.append(((given[0][0] + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(np.uint8))
    )
    trained(pipeline, data)
    hook.remove()
    return seen


def test_a_square_picture_is_shown_whole_and_encoded_once(pipeline):
    data = pairs(3)
    seen = encoded(pipeline, data)
    assert len(seen) == 3
    assert {picture.tobytes() for picture in seen} == {image.tobytes() for image in data.images}


@pytest.mark.parametrize("size", [(60, 32), (32, 60)])
def test_other_pictures_are_cropped_at_random(pipeline, size):
    data = pairs(1, size=size)
    seen = encoded(pipeline, data)
    assert len(seen) == 4
    whole = np.asarray(data.images[0])
    crops = [whole[y : y + 32, x : x + 32] for y in range(size[1] - 31) for x in range(size[0] - 31)]
    places = [next(k for k, crop in enumerate(crops) if (crop == picture).all()) for picture in seen]
    assert len(set(places)) > 1


def test_the_shorter_side_is_fitted_to_the_checkpoint(pipeline):
    seen = encoded(pipeline, Pairs([Image.new("L", (90, 300), 100)], ["a"]))
    assert {picture.shape for picture in seen} == {(32, 32, 3)}
    assert all((picture == 100).all() for picture in seen)


def test_a_checkpoint_that_predicts_velocity_is_tuned_on_velocity(untrained_sd, pipeline):
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    assert trained(pipeline, pairs()) != trained(fresh(untrained_sd), pairs())


def test_a_loss_that_is_not_finite_says_what_to_do(pipeline):
    with pytest.raises(ValueError, match=r"loss of the fine-tune is nan at step \d+: lower its lr"):
        trained(pipeline, pairs(), settings=settings(lr=1e30))


def test_class_balanced_epochs_show_each_class_equally_often(pipeline):
    """On a long tail of 6, 2 and 1 images; with `uniform` each image is shown once."""
    classes = [0] * 6 + [1] * 2 + [2]
    data = Pairs([Image.new("RGB", (32, 32))] * 9, [f"picture {k}" for k in range(9)], classes)

    def shown(sampling: Any, epoch: int) -> list[int]:
        return Batches(pipeline, data, Tuning(), FinetuneSettings(batch=4, sampling=sampling), 0)._order(epoch)

    for epoch in range(3):
        assert sorted(shown("uniform", epoch)) == list(range(9))
        rows = shown("class_balanced", epoch)
        assert Counter(classes[row] for row in rows) == {0: 3, 1: 3, 2: 3}
        assert rows == shown("class_balanced", epoch)
    assert shown("class_balanced", 0) != shown("class_balanced", 1)
    assert {row for epoch in range(20) for row in shown("class_balanced", epoch)} == set(range(9))
