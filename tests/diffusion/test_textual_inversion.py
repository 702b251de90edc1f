"""Textual inversion: only new embedding rows train, each as it would alone; diffusers loads the result."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load, load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bob.core.settings import FinetuneSettings
from bob.core.types import Request, Token, Tuning
from bob.diffusion import checkpoints, lora, sampling, textual_inversion
from bob.diffusion.batches import Batches
from bob.diffusion.image_generator import ImageGenerator
from bob.diffusion.training import Callbacks, Pairs, adapter, train

WORDS = (Token(name="<class_1>", begins_as="Heron"), Token(name="<class_11>", begins_as="ktn", vectors=2))
ALONE = Tuning(unet=False, text_encoder=False, tokens=WORDS, schedule="constant", flip=True, each=2)
DIFF_MIX = Tuning(text_encoder=False, tokens=WORDS, schedule="constant")
SETTINGS = FinetuneSettings(epochs=3, batch=2, lr=5e-2, warmup_steps=0, rank=2, checkpoint_every=1)


def fresh(folder: Path) -> StableDiffusionPipeline:
    return checkpoints.load(f"path:{folder}", device=torch.device("cpu"), dtype=torch.float32)


def pairs(words: tuple[Token, ...] = WORDS) -> Pairs:
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    return Pairs(
        [Image.fromarray(one) for one in noise], [f"a {words[k % len(words)].name} aircraft" for k in range(4)]
    )


def learned(pipeline: StableDiffusionPipeline, tuning: Tuning, **options: Any) -> dict[str, bytes]:
    callbacks, settings = Callbacks(save=options.pop("save", None)), options.pop("settings", SETTINGS)
    train(pipeline, pairs(), settings=settings, seed=0, tuning=tuning, callbacks=callbacks, **options)
    return adapter(pipeline, tuning)


def test_words_begin_as_their_text_and_nothing_else_changes(untrained_sd):
    pipeline = fresh(untrained_sd)
    table = pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    ids = {text: pipeline.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Heron", "ktn")}
    before = pipeline.encode_prompt("a photo of a Heron", "cpu", 1, False)[0]
    textual_inversion.add(pipeline, WORDS)
    held = load(textual_inversion.serialize(pipeline, WORDS))
    assert {name: tuple(rows.shape) for name, rows in held.items()} == {"<class_1>": (1, 96), "<class_11>": (2, 96)}
    for word in WORDS:
        assert torch.allclose(held[word.name], table[ids[word.begins_as]].mean(0).expand(word.vectors, -1))
    assert torch.equal(pipeline.encode_prompt("a photo of a Heron", "cpu", 1, False)[0], before)
    with pytest.raises(ValueError, match="has a token '<class_1>' already"):
        textual_inversion.add(pipeline, WORDS[:1])


@pytest.mark.parametrize(
    ("tuning", "files"), [(ALONE, {textual_inversion.FILE}), (DIFF_MIX, {textual_inversion.FILE, lora.FILE})]
)
def test_only_the_new_rows_of_the_text_encoder_learn(untrained_sd, tuning, files):
    pipeline, before = fresh(untrained_sd), fresh(untrained_sd)
    made = learned(pipeline, tuning)
    assert set(made) == files
    for part in ("unet", "text_encoder", "vae"):
        state = {
            n.replace(".base_layer", "").replace(".table.", "."): t
            for n, t in getattr(pipeline, part).state_dict().items()
        }
        assert all(torch.equal(state[name], tensor) for name, tensor in getattr(before, part).state_dict().items())
    textual_inversion.add(before, WORDS)
    begun = load(textual_inversion.serialize(before, WORDS))
    assert all((rows != begun[name]).any(1).all() for name, rows in load(made[textual_inversion.FILE]).items())
    if lora.FILE in files:
        assert {name.partition(".")[0] for name in load(made[lora.FILE])} == {"unet"}


def test_a_word_that_is_not_shown_stays_as_it_is(untrained_sd):
    """Its Adam state too: many learn side by side as each would alone."""
    pipeline = fresh(untrained_sd)
    data = pairs(WORDS[:1])
    train(pipeline, data, settings=SETTINGS, seed=0, tuning=ALONE)
    held, before = load(textual_inversion.serialize(pipeline, WORDS)), fresh(untrained_sd)
    textual_inversion.add(before, WORDS)
    begun = load(textual_inversion.serialize(before, WORDS))
    assert torch.equal(held["<class_11>"], begun["<class_11>"])
    assert not torch.equal(held["<class_1>"], begun["<class_1>"])


class DenseTable:
    """Diff-Mix's script beside a fine-tune: AdamW on the whole table, whose old rows are put back after each step."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        old = pipeline.text_encoder.get_input_embeddings().weight.detach()
        self._pipeline, self._old, self._optimizer = pipeline, old, None

    def step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if optimizer is self._optimizer:
            return
        rows = list(self._pipeline.text_encoder.get_input_embeddings().rows)
        if self._optimizer is None:
            self.table = torch.nn.Parameter(torch.cat([self._old, torch.stack(rows).detach()]))
            decay = SETTINGS.weight_decay
            self._optimizer = torch.optim.AdamW([self.table], lr=SETTINGS.lr, weight_decay=decay)
        self.table.grad = torch.zeros_like(self.table)
        for row, place in zip(rows, self.table.grad[len(self._old) :], strict=True):
            if row.grad is not None:
                place.copy_(row.grad)
        self._optimizer.step()
        with torch.no_grad():
            self.table[: len(self._old)] = self._old


@pytest.mark.parametrize("dense", [True, False])
def test_diff_mix_trains_words_as_rows_of_a_dense_table(untrained_sd, dense):
    """A batch of one shows one of two words; the other goes on by its moments and weight decay."""
    pipeline, settings = fresh(untrained_sd), dataclasses.replace(SETTINGS, batch=1)
    tuning = dataclasses.replace(ALONE, each=0, dense_tokens=dense)
    reference = DenseTable(pipeline)
    hook = register_optimizer_step_pre_hook(reference.step)
    try:
        train(pipeline, pairs(), settings=settings, seed=0, tuning=tuning)
    finally:
        hook.remove()
    found = torch.stack(list(pipeline.text_encoder.get_input_embeddings().rows))
    wanted = reference.table[-len(found) :]
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6) == dense


@pytest.mark.parametrize("tuning", [ALONE, DIFF_MIX])
def test_interrupted_and_resumed_is_uninterrupted(untrained_sd, tuning):
    states: dict[int, bytes] = {}
    wanted = learned(fresh(untrained_sd), tuning, save=states.__setitem__)
    assert sorted(states) == [1, 2, 3, 4, 5]
    assert learned(fresh(untrained_sd), tuning, state=states[3]) == wanted


def test_balanced_epochs_show_each_word_equally_often(untrained_sd):
    pipeline, data = fresh(untrained_sd), pairs()
    data = Pairs(data.images, [WORDS[0].name, *[WORDS[1].name] * 3])  # a long tail
    tuning = Tuning(unet=False, text_encoder=False, tokens=WORDS, templates=("a {}", "the {}"), each=2)
    train(pipeline, data, settings=SETTINGS, seed=0, tuning=tuning)
    batches = Batches(pipeline, data, tuning, SETTINGS, seed=0)
    seen = [row for step in range(SETTINGS.steps(4)) for row in batches(step).tokens.tolist()]
    assert len(seen) == 3 * 4
    assert tuning.epoch(data.prompts) == 4
    new = pipeline.tokenizer.convert_tokens_to_ids(["<class_1>", "<class_11>", "<class_11>_1"])
    assert [sum(word in row for row in seen) for word in new] == [6, 6, 6]
    assert len({tuple(row) for row in seen}) == 4  # both words under both templates


def test_fixed_steps_take_the_place_of_epochs(untrained_sd):
    states: dict[int, bytes] = {}
    settings = FinetuneSettings(total_steps=5, batch=3, warmup_steps=0, rank=2, checkpoint_every=1)
    learned(fresh(untrained_sd), DIFF_MIX, settings=settings, save=states.__setitem__)
    assert sorted(states) == [1, 2, 3, 4]


def test_images_are_shown_smaller_and_mirrored_if_asked(untrained_sd):
    pipeline, seen = fresh(untrained_sd), []
    hook = pipeline.vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    learned(pipeline, Tuning(tokens=WORDS, side=16, flip=True))
    hook.remove()
    assert {tuple(image.shape) for image in seen} == {(3, 16, 16)}
    mirrored = [any(torch.allclose(one.flip(-1), other) for other in seen) for one in seen]
    assert any(mirrored)
    assert len(seen) <= 8  # each at most once either way


def test_diffusers_draws_the_same_with_what_is_saved(untrained_sd, tmp_path):
    pipeline = fresh(untrained_sd)
    made = learned(pipeline, DIFF_MIX)
    asked = [
        Request(request_id=f"{k}-0", class_id=k, index=0, prompt=f"a {word.name} aircraft", seed=k, steps=3)
        for k, word in enumerate(WORDS)
    ]
    painter = ImageGenerator("cpu")
    painter.use(f"path:{untrained_sd}", "made", lambda: made)
    ours = sampling.latents(painter._pipeline, asked, sampling.Sources(painter._pipeline))

    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    stock = StableDiffusionPipeline.from_pretrained(untrained_sd, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(tmp_path, weight_name=lora.FILE)
    for name, rows in load_file(tmp_path / textual_inversion.FILE).items():
        stock.text_encoder.resize_token_embeddings(len(stock.tokenizer) + len(rows), mean_resizing=False)  # quietly
        stock.load_textual_inversion({name: rows})
    generators = [torch.Generator().manual_seed(r.seed) for r in asked]
    call = {"generator": generators, "guidance_scale": 2.0, "num_inference_steps": 3, "output_type": "latent"}
    assert (stock([r.prompt for r in asked], **call).images - ours).abs().max() < 1e-4
    live = sampling.latents(pipeline, asked, sampling.Sources(pipeline))
    assert (live - ours).abs().max() < 1e-4


def test_a_painter_forgets_words_with_their_adapter(untrained_sd):
    made = learned(fresh(untrained_sd), DIFF_MIX)
    painter, name = ImageGenerator("cpu"), f"path:{untrained_sd}"
    asked = [Request(request_id="0-0", class_id=0, index=0, prompt="a <class_1> aircraft", seed=1, steps=2)]
    drawn = {}
    for adapter_name in ("", "one", "", "one"):
        painter.use(name, adapter_name, lambda: made)
        (row,), _ = painter.draw(asked, batch=1)
        assert drawn.setdefault(adapter_name, row["image"]) == row["image"]
    assert drawn[""] != drawn["one"]
    with pytest.raises(ValueError, match=r"learned_embeds\.safetensors is damaged"):
        painter.use(name, "broken", lambda: {textual_inversion.FILE: b"none"})
