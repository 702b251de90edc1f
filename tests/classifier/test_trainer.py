"""Training of the classifier on toy pictures: recipe, selection by validation, determinism, resuming."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch

from bob.backbones.resnet_mini import ResNetMini
from bob.classifier import loss, results, trainer
from bob.classifier.data import Data
from bob.classifier.trainer import Training
from bob.core.settings import Point, Run, SweepSettings
from bob.core.step_table import STEPS
from bob.core.training_state import Save
from bob.store import schema, tables

CLASSES = 3
SETTINGS = SweepSettings(lrs=(1e-3,), weight_decays=(0.0,), batch=8, warmup_epochs=1.0, mix_probability=0.5)
POINT = Point(lr=1e-3, weight_decay=0.0, lam=0.5)


def train(data: Data, *, state: bytes | None = None, save: Save | None = None, save_every: float = 0.0, **changes):
    """The rows of a training with some of its fields changed."""
    fields = {"backbone": "resnet_mini", "point": POINT, "settings": SETTINGS, "seed": 0}
    return trainer.train(data, Training(**fields | changes), state=state, save=save, save_every=save_every)


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory):
    """Untrained minis where the backbones look first."""
    from safetensors.torch import save_file

    from bob.backbones import mae_mini, resnet_mini
    from bob.skyworld import models as minis

    root, tokenizer = tmp_path_factory.mktemp("models"), minis.clip_tokenizer()
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        networks = {"resnet_mini": resnet_mini.network(60), "mae_mini": mae_mini.network(0, pretraining=True)}
        for name, network in networks.items():
            (root / name).mkdir()
            save_file(network.state_dict(), root / name / "model.safetensors")
        minis.clip(tokenizer).save_pretrained(root / "clip_mini")
        tokenizer.save_pretrained(root / "clip_mini")
        patch.setenv("BOB_MODELS", str(root))
        yield


every_mini = pytest.mark.parametrize("name", ["resnet_mini", "clip_mini", "mae_mini"])


def pictures(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Class k is brightest in channel k."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.integers(0, 120, (count, 32, 32, 3))
    pixels[np.arange(count), :, :, labels] += 120
    return pixels.astype(np.uint8), labels


def data(*, images: int = 12, **changes) -> Data:
    real, val, drawn = pictures(6, seed=0), pictures(9, seed=1), pictures(images, seed=2)
    fields = {
        "class_names": ("red", "green", "blue"),
        "descriptor": "square",
        "real": real[0],
        "real_labels": real[1],
        "val": val[0],
        "val_labels": val[1],
        "synthetic": drawn[0],
        "synthetic_labels": np.eye(CLASSES, dtype=np.float32)[drawn[1]],
        "copies": 2,
    }
    return Data(**fields | changes)


# -- grid and selection -------------------------------------------------------------------------


def test_grid_of_the_paper():
    """18 points for ResNet-50, 9 where there is nothing to weigh by lambda (Table 4)."""
    points = SweepSettings().points(has_synthetic=True)
    assert len(set(points)) == len(points) == 18
    without = SweepSettings().points(has_synthetic=False)
    assert len(set(without)) == 9
    assert {point.lam for point in without} == {1.0}


def history(*accuracies: float) -> list[dict]:
    return [{"epoch": k + 1, "val_accuracy": value} for k, value in enumerate(accuracies)]


def points(count: int) -> list[Point]:
    return [dataclasses.replace(POINT, lr=float(k + 1)) for k in range(count)]


@pytest.mark.parametrize(
    ("histories", "best"),
    [
        ([history(0.1, 0.9, 0.2), history(0.5, 0.5, 0.8)], 0),  # at any epoch, not the last
        ([history(0.1, 0.2, 0.9), history(0.1, 0.9, 0.1)], 1),  # a tie: the earlier epoch
        ([history(0.3, 0.9), history(0.2, 0.9)], 0),  # a tie: the lower index
        ([history(0.9, math.nan), history(0.1, 0.3)], 1),  # it broke off
        ([history(math.nan), history(0.0)], 1),
    ],
)
def test_selects_by_validation(histories, best):
    of = points(len(histories))
    assert results.select(list(zip(of, histories, strict=True))) is of[best]


def test_a_sweep_that_failed_throughout_says_so():
    with pytest.raises(ValueError, match="all 2 trainings of the sweep ended"):
        results.select([(point, history(math.nan)) for point in points(2)])


# -- training -----------------------------------------------------------------------------------


@every_mini
def test_the_same_seed_gives_the_same_bits_and_leaves_global_state_alone(name):
    """Dropout, drop path, augmentation, mixing and the head included."""
    point = dataclasses.replace(POINT, layer_decay=0.75 if name == "mae_mini" else 1.0)
    of = partial(train, backbone=name, point=point)
    before = torch.get_rng_state()
    first, again = (list(of(data(), epochs=2)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert [row["epoch"] for row in first] == [1, 2]
    assert first[0]["train_loss"] != next(of(data(), epochs=2, seed=1))["train_loss"]


@every_mini
def test_points_in_lockstep_give_the_bits_of_each_by_itself(name):
    """Dropout and drop path draw from torch's one generator."""
    given, decay = data(), 0.75 if name == "mae_mini" else 1.0
    rates = [dataclasses.replace(POINT, lr=lr, layer_decay=decay) for lr in (1e-3, 1e30, 3e-3)]
    of = [Training(backbone=name, point=point, settings=SETTINGS, epochs=2, seed=0) for point in rates]
    alone = [list(trainer.train(given, one)) for one in of]
    rows: list[list[dict]] = [[] for _ in of]
    before = torch.get_rng_state()
    courses = [trainer.Course(given, one) for one in of]
    for number, row in trainer.train_together(courses):
        rows[number].append(row)
    assert len({id(course.trainer.views) for course in courses}) == 1  # the validation images' are kept once
    assert torch.equal(torch.get_rng_state(), before)
    assert rows[0] == alone[0]
    assert rows[2] == alone[2]
    assert math.isnan(rows[1][-1]["val_loss"])
    assert len(rows[1]) == len(alone[1])


HALF = dataclasses.replace(SETTINGS, precision="float16")


def scaled(monkeypatch, **options) -> list[torch.amp.GradScaler]:
    """The loss scalers of later trainings, which start with these options."""
    made, kind = [], torch.amp.GradScaler

    def scaler(device: str, *, enabled: bool) -> torch.amp.GradScaler:
        made.append(kind(device, enabled=enabled, **options))
        return made[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    return made


@every_mini
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_moves_a_loss_a_little_and_gives_the_same_bits_twice(name, precision, monkeypatch):
    scaled(monkeypatch, init_scale=2.0**10)  # of a few steps none is to be skipped
    lower = dataclasses.replace(SETTINGS, precision=precision)
    full, first, again = (
        list(train(data(), backbone=name, settings=settings, epochs=2)) for settings in (SETTINGS, lower, lower)
    )
    assert first == again
    losses = [[row["train_loss"] for row in rows] for rows in (full, first)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_step_whose_gradients_overflow_is_skipped_and_no_failure(monkeypatch, models):
    """At this scale gradients are infinite in float16 until it has been halved often enough."""
    made = scaled(monkeypatch, init_scale=2.0**40)
    rates, original = [], trainer.Trainer._set_learning_rate

    def rate(self, steps: int) -> None:
        original(self, steps)
        rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(trainer.Trainer, "_set_learning_rate", rate)
    (row,) = train(data(), settings=HALF, epochs=1)
    assert made[0].get_scale() < 2.0**40
    assert math.isfinite(row["train_loss"])
    skipped = next(iter(rates)), len(rates)
    rates.clear()
    monkeypatch.undo()
    monkeypatch.setattr(trainer.Trainer, "_set_learning_rate", rate)
    list(train(data(), epochs=1))
    assert skipped == (rates[0], len(rates))  # a skipped step counts in the schedule


def test_a_loss_that_overflows_is_left_out_and_its_step_skipped(monkeypatch):
    original, seen = loss.weighted_cross_entropy, []

    def first_is_infinite(*given, **options):
        seen.append(original(*given, **options))
        return seen[-1] * math.inf if len(seen) == 1 else seen[-1]

    monkeypatch.setattr(loss, "weighted_cross_entropy", first_is_infinite)
    rows = list(train(data(), settings=HALF, epochs=1))
    assert math.isfinite(rows[0]["val_loss"])
    assert rows[0]["train_loss"] == pytest.approx(np.mean([one.item() for one in seen[1:]]), rel=1e-3)
    seen.clear()
    assert math.isnan(next(train(data(), epochs=1))["train_loss"])  # in float32 it is a failure


def test_losses_that_all_overflow_end_the_training():
    rows = list(train(data(), settings=HALF, point=dataclasses.replace(POINT, lr=1e30), epochs=9))
    assert len(rows) < 9
    assert math.isnan(rows[-1]["val_accuracy"])


def test_on_a_cpu_auto_is_float32():
    exact = dataclasses.replace(SETTINGS, precision="float32")
    assert list(train(data(), epochs=1)) == list(train(data(), settings=exact, epochs=1))


def test_global_state_is_left_alone_between_epochs_too():
    rows = train(data(), epochs=2)
    before = torch.get_rng_state()
    next(rows)
    assert torch.equal(torch.get_rng_state(), before)
    rest = list(rows)
    torch.manual_seed(5)  # someone else draws in between
    again = train(data(), epochs=2)
    next(again)
    torch.rand(3)
    assert list(again) == rest


def test_it_learns():
    settings = dataclasses.replace(SETTINGS, mix_probability=0.0)
    *_, last = train(data(images=60, copies=10), settings=settings, epochs=5)
    assert last["val_accuracy"] > 0.8


def never() -> tuple[np.ndarray, np.ndarray]:
    raise AssertionError("test data were opened")


def test_a_sweep_never_opens_test_data():
    for given in (data(), data(test=never)):
        assert all(not k.startswith("test") for row in train(given, epochs=2) for k in row)
    with pytest.raises(ValueError, match=r"data\.test is None"):
        next(train(data(), epochs=1, with_test=True))


def test_the_final_accuracy_is_read_at_the_best_epoch_on_validation():
    rows = list(train(data(test=lambda: pictures(12, seed=3)), epochs=5, with_test=True))
    values = [row["val_accuracy"] for row in rows]
    assert [k for k, row in enumerate(rows) if "test_accuracy" in row] == [
        k for k, value in enumerate(values) if value > max([-1.0, *values[:k]])
    ]
    made = results.result_rows(rows, run=Run(dataset="toy", method="bob"), key="k", phase="final", point=POINT)
    table = tables.from_rows(made, schema.RESULTS)
    assert table.num_rows == 5 * 3 + 2 + CLASSES
    tested = {row["metric"]: row for row in made if row["split"] == "test"}
    assert {row["epoch"] for row in tested.values()} == {values.index(max(values)) + 1}
    assert tested["accuracy"]["value"] == pytest.approx(
        sum(tested[f"class_accuracy/{k}"]["value"] for k in range(CLASSES)) / CLASSES
    )
    assert tested["class_accuracy/0"]["n"] == 4


def test_lambda_one_ignores_the_labels_of_synthetic_pictures():
    only_real = dataclasses.replace(POINT, lam=1.0)
    shuffled = data().synthetic_labels[::-1].copy()
    settings = dataclasses.replace(SETTINGS, mix_probability=0.0)
    one, other = (
        list(train(d, point=only_real, settings=settings, epochs=2)) for d in (data(), data(synthetic_labels=shuffled))
    )
    assert one == other
    assert one != list(train(data(synthetic_labels=shuffled), settings=settings, epochs=2))


@pytest.mark.parametrize("mixup", [True, False])
def test_mixing_never_crosses_from_real_to_synthetic(mixup, monkeypatch):
    parts = []
    original = loss.mix

    def spy(images, targets, generator, *, use_mixup, alpha):
        parts.append((images.min().item(), images.max().item(), use_mixup))
        return original(images, targets, generator, use_mixup=use_mixup, alpha=alpha)

    monkeypatch.setattr(loss, "mix", spy)
    black, white = np.zeros((6, 32, 32, 3), np.uint8), np.full((12, 32, 32, 3), 255, np.uint8)
    always = dataclasses.replace(SETTINGS, mix_probability=1.0)
    list(train(data(real=black, synthetic=white), settings=always, epochs=1, mixup=mixup))
    assert parts[::2] == [(0.0, 0.0, mixup)] * len(parts[::2])
    assert all(low > 0.5 for low, _, _ in parts[1::2])


def test_trains_on_real_pictures_alone():
    (row,) = train(data(images=0), point=dataclasses.replace(POINT, lam=1.0), epochs=1)
    assert row["train_n"] == 12
    assert math.isfinite(row["train_loss"])


def test_a_loss_that_is_not_finite_ends_the_training():
    rows = list(train(data(), point=dataclasses.replace(POINT, lr=1e30), epochs=9))
    assert len(rows) < 9
    assert math.isnan(rows[-1]["train_loss"])
    assert math.isnan(rows[-1]["val_accuracy"])


# -- resuming -----------------------------------------------------------------------------------


@pytest.fixture
def models(monkeypatch) -> list[torch.nn.Module]:
    """The models that trainings have made, in order."""
    made: list[torch.nn.Module] = []
    original = ResNetMini.build

    def build(self, class_names, *, descriptor):
        made.append(original(self, class_names, descriptor=descriptor))
        return made[-1]

    monkeypatch.setattr(ResNetMini, "build", build)
    return made


final = partial(train, epochs=4, with_test=True, settings=dataclasses.replace(SETTINGS, mix_probability=1.0))


@every_mini
def test_any_backbone_resumes_where_it_was(name):
    """Of CLIP only LoRA is saved; the rest comes from its weights."""
    of = partial(train, data(), backbone=name, epochs=3)
    states: dict[int, bytes] = {}
    wanted = list(of(save=states.__setitem__))
    assert list(of(state=states[2])) == wanted


def test_the_loss_scaler_resumes_where_it_was(monkeypatch, models):
    """The scale grows after three good steps and falls after a bad one, so that it is never at its start."""
    made = scaled(monkeypatch, init_scale=2.0**20, growth_interval=3)
    of, states = partial(train, data(), settings=HALF, epochs=3), {}
    wanted = list(of(save=states.__setitem__))
    for epoch in (1, 2):
        assert list(of(state=states[epoch])) == wanted
        assert made[-1].state_dict() == made[0].state_dict()
        weights, others = (model.state_dict() for model in (models[0], models[-1]))
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert made[0].get_scale() != 2.0**20


@pytest.mark.parametrize("mixup", [True, False])
def test_interrupted_and_resumed_is_uninterrupted(mixup, models):
    given = data(test=lambda: pictures(12, seed=3))
    states: dict[int, bytes] = {}
    wanted = list(final(given, mixup=mixup, save=states.__setitem__))
    assert sorted(states) == [1, 2, 3]  # after the last epoch there is nothing left to resume
    for epoch in (1, 2, 3):
        later: dict[int, bytes] = {}
        rows = list(final(given, mixup=mixup, state=states[epoch], save=later.__setitem__))
        assert rows == wanted
        assert sorted(later) == list(range(epoch + 1, 4))
        weights, others = (model.state_dict() for model in (models[0], models[-1]))
        assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_however_often_it_is_interrupted(models):
    given, held = data(test=lambda: pictures(12, seed=3)), []
    for _ in range(4):
        rows = final(given, state=held[-1] if held else None, save=lambda _, state: held.append(state))
        for _ in range(len(held)):
            next(rows)  # of the epochs before
        last = next(rows)
    assert len(held) == 3
    assert last == list(final(given))[-1]
    weights, others = (model.state_dict() for model in models[-2:])
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_short_training_saves_nothing():
    states: dict[int, bytes] = {}
    assert len(list(train(data(), epochs=3, save=states.__setitem__, save_every=600.0))) == 3
    assert states == {}


@pytest.mark.parametrize(
    ("changes", "keep", "words"),
    [
        ({"seed": 1}, None, "of another training"),
        ({"epochs": 4}, None, "of another training"),
        ({"mixup": False}, None, "of another training"),
        ({"point": dataclasses.replace(POINT, lr=2e-3)}, None, "of another training"),
        ({"settings": dataclasses.replace(SETTINGS, mix_probability=0.4)}, None, "of another training"),
        ({"data": data(copies=3)}, None, "of another training"),
        ({"with_test": True, "data": data(test=lambda: pictures(12, seed=3))}, None, "of another training"),
        ({}, -1, "damaged"),
    ],
)
def test_a_state_that_cannot_be_used_is_told_of_and_left(changes, keep, words, capsys):
    options = {"data": data(), "epochs": 2} | changes
    states: dict[int, bytes] = {}
    list(train(data(), epochs=2, save=states.__setitem__))
    made = list(train(**options, state=states[1][:keep]))
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line
    assert made == list(train(**options))


def test_a_state_of_another_version_is_not_used(monkeypatch, capsys):
    states: dict[int, bytes] = {}
    wanted = list(train(data(), epochs=2, save=states.__setitem__))
    monkeypatch.setitem(STEPS, "classify", dataclasses.replace(STEPS["classify"], version=2))
    assert list(train(data(), epochs=2, state=states[1])) == wanted
    assert "of another training" in capsys.readouterr().out


def test_evaluation_goes_on_in_smaller_batches(models):
    (wanted,), sizes = train(data(), epochs=1), []

    def full(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if module is models[-1] and not module.training:
            sizes.append(len(args[0]))
            if sizes[-1] > 4:
                raise torch.OutOfMemoryError("no room")

    with torch.nn.modules.module.register_module_forward_pre_hook(full):
        (row,) = train(data(), epochs=1)
    assert sizes == [9, 4, 4, 1]
    assert row == pytest.approx(wanted)
