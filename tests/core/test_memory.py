"""The memory model: what it says of fine-tunes on cards, how a batch is split, and that its table is not stale."""

import dataclasses
import itertools
import json
import tomllib

import pytest

from benchmarks.counting import diffusion, others
from benchmarks.counting.live_bytes import autocast, peak
from bob import methods
from bob.core import memory, registry
from bob.core.budget import Budget
from bob.core.memory import CARDS, Footprint, MicroBatch
from bob.core.settings import FinetuneSettings
from bob.core.types import Context, Shot, Token, TrainingSet, Tuning
from bob.steps.defaults import defaults
from tests.paths import ROOT

GB = 10**9
SMALL = Footprint(weights=4 * GB, trained=GB, workspace=GB, image=2 * GB, checkpointed=GB // 2, flops=1.0)


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    names = tuple(f"class {k}" for k in range(200))  # the most that a data set of Table 1 has
    shots = tuple(
        Shot(image_id=name, sha1="", path="", class_id=k, class_name=name, split="train", width=512, height=512)
        for k, name in enumerate(names)
    )
    return TrainingSet(
        dataset="any",
        descriptor="bird",
        superclass="bird",
        class_names=names,
        shots=shots,
        budget=Budget(drawn=(1,) * len(names), copies=1, alone=1),
        contexts={shot.image_id: Context(background="sky", pose="flying") for shot in shots},
    )


def finetune(method: str, checkpoint: str, training: TrainingSet) -> tuple[Tuning, FinetuneSettings, Footprint]:
    tuning = methods.load(method).tuning(training)
    run = defaults(checkpoint=checkpoint, backbone="resnet50", captioner="qwen_vl:7b", method=method)
    footprint = memory.finetune(checkpoint, tuning, run.finetune)
    assert footprint is not None
    return tuning, run.finetune, footprint


def chosen(footprint: Footprint, card: str, settings: FinetuneSettings) -> MicroBatch:
    return memory.micro_batch(footprint, free=CARDS[card].bytes, batch=settings.batch, precision="float32")


# -- the paper's fine-tunes on cards --------------------------------------------------------------


@pytest.mark.parametrize("card", ["L4", "A10G", "RTX4090", "A100-40", "A100-80", "H100", "H200", "T4", "V100"])
@pytest.mark.parametrize("checkpoint", ["sd15", "sd21"])
@pytest.mark.parametrize("method", registry.names("method"))
def test_a_fine_tune_fits_every_card_with_a_tenth_to_spare(method, checkpoint, card, training):
    if not methods.load(method).train_pairs(training):
        return
    _, settings, footprint = finetune(method, checkpoint, training)
    micro = chosen(footprint, card, settings)
    assert 1 <= micro.images <= settings.batch
    assert footprint.bytes(micro.images, checkpointing=micro.checkpointing) <= 0.9 * CARDS[card].bytes


STEPS = [*itertools.product(("bob", "da_fusion", "diff_mix"), ("sd15", "sd21"), ("L4", "A100-40", "A100-80"))]


@pytest.mark.parametrize(
    ("method", "checkpoint", "card"),
    [pytest.param(*step, marks=[pytest.mark.slow] * (step != ("bob", "sd21", "L4"))) for step in STEPS],
)
def test_a_step_of_the_chosen_micro_batch_takes_on_meta_tensors_what_the_table_says(method, checkpoint, card, training):
    """The whole step is counted at that size, not extrapolated from smaller ones."""
    tuning, settings, footprint = finetune(method, checkpoint, training)
    micro = chosen(footprint, card, settings)
    models = diffusion._tuned(checkpoint, memory._parts(tuning), checkpointing=micro.checkpointing)
    step = diffusion._step(models, micro.images, side=tuning.side or 512, precision="float32")
    counted = footprint.weights + footprint.trained + memory.RESERVED + peak(step, models.unet, models.text_encoder)
    said = footprint.bytes(micro.images, checkpointing=micro.checkpointing)
    assert counted <= 0.9 * CARDS[card].bytes
    assert counted <= said <= counted + 1.2 * GB  # kept latents and the VAE's own peak, which comes before the step


def test_checkpointing_is_for_what_does_not_fit_without(training):
    _, settings, footprint = finetune("bob", "sd21", training)
    free = int((footprint.bytes(1) - GB) / 0.9)
    assert memory.fits(footprint, free=free) == 0
    assert memory.micro_batch(footprint, free=free, batch=settings.batch, precision="float32").checkpointing


# -- the table ------------------------------------------------------------------------------------


def near(counted: dict, written: dict, rel: float = 0.02) -> None:
    assert counted.keys() == written.keys()
    for name, value in counted.items():
        if isinstance(value, dict):
            near(value, written[name], rel)
        else:
            assert value == pytest.approx(written[name], rel=rel, abs=1e4), name


def test_the_table_is_what_a_count_gives():
    tuned, drawn = memory._table()["finetune"], memory._table()["generate"]
    near(diffusion.count_step("sd15", "words", 512, "float32"), tuned["sd15"]["steps"]["words float32"]["512"])
    near(diffusion.count_step("skyworld", "words", 32, "bfloat16"), tuned["skyworld"]["steps"]["words bfloat16"]["32"])
    near(diffusion.generate("skyworld"), drawn["skyworld"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["sd15", "skyworld"])  # of sd21 the steps below are counted, by the same code
def test_all_of_the_table_is_what_a_count_gives(name):
    table = memory._table()
    near(diffusion.finetune(name), table["finetune"][name])
    near(diffusion.generate(name), table["generate"][name])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tables_classifiers_and_captioners_are_what_a_count_gives():
    table = memory._table()
    for name in others.BACKBONES:
        near(others.classify(name), table["classify"][name])
    for size in others.CAPTIONERS:
        near(others.caption(size), table["caption"][f"qwen_vl:{size}"])


def test_the_table_is_part_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "core/memory_table.json" in project["tool"]["setuptools"]["package-data"]["bob"]
    assert json.loads((ROOT / "bob/core/memory_table.json").read_text(encoding="utf-8")) == memory._table()


def test_dropout_saves_a_byte_an_element_as_on_a_gpu():
    import torch

    x = torch.empty(1024, 1024, device="meta", requires_grad=True)  # 4 MiB, not the step's

    def work() -> torch.Tensor:
        with autocast("float32"):
            return torch.nn.functional.dropout(x, 0.1, training=True)

    assert peak(work) == 5 * 2**20


def test_attention_saves_no_scores():
    import torch

    x = torch.empty(1, 8, 4096, 64, device="meta", requires_grad=True)

    def work() -> torch.Tensor:
        with autocast("float32"):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    assert x.nbytes < peak(work) < 1.1 * x.nbytes  # the scores would take 64 times as much


def test_live_bytes_are_those_that_python_holds():
    """Against a sum that can be done by hand: two products of which one is released."""
    import torch

    def work() -> torch.Tensor:
        a = torch.empty(1024, 1024, device="meta")  # 4 MiB
        b = a @ a  # 8 MiB alive
        del a
        c = b + 1  # 8 MiB
        return c.view(-1)  # no new bytes

    assert peak(work) == 8 * 2**20


# -- splitting a batch ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "batch", "precision", "images", "checkpointing"),
    [
        (200 * GB, 80, "float32", 80, False),
        (100 * GB, 80, "float32", 40, False),  # 42 fit: two equal parts
        (40 * GB, 80, "float32", 14, False),  # 15 fit: six parts
        (8 * GB, 80, "float32", 2, True),  # none fits without
        (10 * GB, 80, "float32", 1, False),
        (10 * GB, 80, "bfloat16", 6, True),  # 1 would leave the GPU idle
        (20 * GB, 80, "bfloat16", 6, False),
        (200 * GB, 3, "bfloat16", 3, False),
    ],
)
def test_a_batch_is_split_in_equal_parts_and_the_least_time(free, batch, precision, images, checkpointing):
    micro = memory.micro_batch(SMALL, free=free, batch=batch, precision=precision)
    assert micro == MicroBatch(images=images, checkpointing=checkpointing)
    assert SMALL.bytes(images, checkpointing=checkpointing) <= 0.9 * free


def test_more_memory_never_takes_more_passes():
    passes = [
        -(-80 // memory.micro_batch(SMALL, free=free * GB, batch=80, precision="float32").images)
        for free in range(9, 200)
    ]
    assert passes == sorted(passes, reverse=True)


def test_bytes_grow_with_images_and_less_so_with_checkpointing():
    plain, checkpointed = ([SMALL.bytes(k, checkpointing=c) for k in range(5)] for c in (False, True))
    assert plain == sorted(set(plain))
    assert plain[0] == checkpointed[0]
    assert all(a > b for a, b in zip(plain[1:], checkpointed[1:], strict=True))


def test_an_image_that_does_not_fit_is_refused_in_one_sentence_with_the_numbers():
    with pytest.raises(ValueError, match=r"one image needs 6\.5 GB, of which weights take 4\.0, and 5\.4 GB may") as e:
        memory.micro_batch(SMALL, free=6 * GB, batch=80, precision="float32")
    assert "10 % of 6.0 GB stays free" in str(e.value)
    assert "\n" not in str(e.value)


# -- models ---------------------------------------------------------------------------------------


def test_clips_memory_is_linear_in_the_classes():
    few, more, most = (memory.classify("clip_vit_b16", classes=n) for n in (0, 100, 200))
    assert few is not None
    assert more is not None
    assert most is not None
    assert most.bytes(64) - more.bytes(64) == more.bytes(64) - few.bytes(64) > 0


@pytest.mark.parametrize("name", ["resnet_mini", "mae_mini"])
def test_a_model_in_lockstep_adds_gradients_and_no_activations(name):
    """Two that take turns at a batch, counted on meta tensors; the moments, which no step here makes, stay as well."""
    (backbone, first), (_, second) = (others._classifier(name, 10) for _ in range(2))

    def counted(*models):
        return peak(lambda: [others._step(backbone, model, 8, 10, "bfloat16")() for model in models], *models)

    footprint = memory.classify(name, classes=10)
    assert footprint is not None
    assert counted(first, second) - counted(first) == pytest.approx(footprint.trained / 3, rel=0.02)
    assert counted(first) > 1.5 * footprint.trained / 3  # of which activations are the greater part


def test_lockstep_leaves_a_tenth_and_counts_activations_once():
    footprint = Footprint(weights=GB, trained=GB, workspace=3 * GB, image=GB // 64, checkpointed=0, flops=1.0)
    for models in (1, 2, 5):
        free = int((4 + 2 * models) * GB / 0.9) + 10
        assert memory.lockstep(footprint, free=free, images=64) == models
        assert memory.lockstep(footprint, free=free - GB // 2, images=64) == models - 1
    assert memory.lockstep(footprint, free=-GB, images=64) == 0


def test_trained_bytes_follow_rank_and_words(training):
    tuning, settings, footprint = finetune("diff_mix", "sd15", training)
    doubled = memory.finetune("sd15", tuning, dataclasses.replace(settings, rank=2 * settings.rank))
    wordless = memory.finetune("sd15", dataclasses.replace(tuning, tokens=()), settings)
    assert doubled is not None
    assert wordless is not None
    words = 200 * 768 * 16
    assert footprint.trained - wordless.trained == words
    assert doubled.trained - words == 2 * (footprint.trained - words)


def test_a_smaller_side_needs_less_and_an_unknown_one_is_taken_for_the_next_larger():
    images = {}
    for side in (0, 200, 224, 300, 512, 768):
        tuning = Tuning(text_encoder=False, tokens=(Token(name="<a>", begins_as="a"),), side=side)
        footprint = memory.finetune("sd21", tuning, FinetuneSettings())
        assert footprint is not None
        images[side] = footprint.image
    assert images[200] == images[224] < images[300] == images[512] == images[768] == images[0]


def test_models_of_others_are_not_known():
    assert memory.finetune("", Tuning(), FinetuneSettings()) is None
    assert memory.generate("") is None
    assert memory.classify("timm:vit_tiny_patch16_224", classes=10) is None
    assert memory.caption("openai_vision:gpt-4o") is None
    assert memory.caption("qwen_vl") == memory.caption("qwen_vl:7b") is not None
