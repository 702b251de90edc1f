"""Impossible values in every field of the settings, and flags that contradict each other."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bob import datasets, pipeline
from bob.classifier import loss
from bob.core.settings import DrawSettings, FinetuneSettings, Point, Run, SweepSettings
from bob.steps.workers import inline
from bob.store import Store
from tests.integration.tools import SMALLEST, Bob, photos, tree

pytestmark = pytest.mark.timeout(60)

GOOD = (
    FinetuneSettings(),
    DrawSettings(),
    SweepSettings(),
    Point(lr=1e-3, weight_decay=0.0, lam=0.5),
    Run(dataset="skyworld", method="bob"),
)
ZERO = {
    "weight_decay",
    "weight_decays",
    "warmup_steps",
    "micro_batch",
    "warmup_epochs",
    "guidance",
    "min_lr",
    "mix_probability",
}
ZERO |= {"lam", "lambdas", "seed", "shots", "val", "total_steps", "base_batch", "warmup_lr", "label_smoothing", "after"}
"""What 0 makes sense of; a new field is taken not to."""


@pytest.fixture
def bob(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bob:
    return Bob(capsys, monkeypatch)


# -- numbers --------------------------------------------------------------------------------------


def fields(*kinds: type) -> list[Any]:
    """(settings, field) for every field that holds a number of these kinds, or several."""
    found = []
    for settings in GOOD:
        for field in dataclasses.fields(settings):
            held = getattr(settings, field.name)
            if isinstance(held[0] if held and isinstance(held, tuple) else held, kinds):
                found.append(pytest.param(settings, field.name, id=f"{type(settings).__name__}.{field.name}"))
    return found


def changed(settings: Any, name: str, value: float) -> Any:
    held = getattr(settings, name)
    return dataclasses.replace(settings, **{name: (*held, value) if isinstance(held, tuple) else value})


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("settings", "name"), fields(int, float))
def test_no_number_is_negative_or_none(settings: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must .*, got .*{value}"):
        changed(settings, name, value)


@pytest.mark.parametrize(("settings", "name"), fields(int, float))
def test_zero_is_taken_where_it_means_something(settings: Any, name: str) -> None:
    if name in ZERO:
        assert getattr(changed(settings, name, 0), name) != getattr(settings, name) or getattr(settings, name) == 0
    else:
        with pytest.raises(ValueError, match=rf"^{name} must be positive, got "):
            changed(settings, name, 0)


@pytest.mark.parametrize(("settings", "name"), fields(int))
def test_a_count_that_no_machine_can_hold_is_refused(settings: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must .*, got "):
        changed(settings, name, 10**30)


@pytest.mark.parametrize("name", ["lam", "layer_decay", "mix_probability", "lambdas"])
def test_a_fraction_is_at_most_1(name: str) -> None:
    (settings,) = (settings for settings in GOOD if hasattr(settings, name))
    assert changed(settings, name, 1.0)
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got"):
        changed(settings, name, 1.0001)


@pytest.mark.parametrize("steps", [1, 1000])
def test_sampler_steps_that_draw_noise_or_crash_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=r"steps must lie in \[2, 999\] \(sampler steps\)"):
        DrawSettings(steps=steps)


def test_a_warm_up_may_outlast_the_training() -> None:
    """It is how the smoke runs are made; the lr climbs as far as it gets."""
    assert FinetuneSettings(epochs=1, warmup_steps=100).steps(5) == 1
    rates = [loss.learning_rate(step, steps=4, warmup=8, start=0.0, peak=1.0, floor=0.0) for step in range(4)]
    assert rates == pytest.approx([0, 1 / 8, 2 / 8, 3 / 8])


@pytest.mark.parametrize("confounding", ["1.01", "-0.1", "nan", "inf", "x", "0.5,0.6", "1e400"])
def test_confounding_is_a_number_from_0_to_1(confounding: str) -> None:
    with pytest.raises(ValueError, match="skyworld takes its confounding, a number from 0 to 1, got"):
        datasets.load(f"skyworld:{confounding}")


@pytest.mark.parametrize(("shots", "val"), [(1001, 16), (5, 10**6)])
def test_skyworld_is_not_listed_for_hours(shots: int, val: int) -> None:
    with pytest.raises(ValueError, match="at most 1,000 shots or val images per class"):
        datasets.load("skyworld").split(shots=shots, val=val, seed=0)


@pytest.mark.parametrize("descriptor", ["  ", "a\nb", "\t"])
def test_a_descriptor_is_a_word(descriptor: str) -> None:
    with pytest.raises(ValueError, match="the descriptor is a word for what all classes are, such as mushroom, got"):
        datasets.load("skyworld", descriptor)


# -- the command line -----------------------------------------------------------------------------

REFUSED = {
    "unknown method": ("--method dob", "unknown method 'dob'; known: .*Did you mean 'bob'"),
    "unknown switch": ("--method bob:preserve=on", "unknown switch of method bob 'preserve'.*'preservation'"),
    "unknown value of a switch": ("--method bob:preservation=of", "unknown value of bob's switch.*Did you mean 'off'"),
    "switch without a value": ("--method bob:preservation", "unknown value of bob's switch preservation ''"),
    "switch of a method that has none": ("--method real_only:x=1", "real_only has no switches, got 'x'"),
    "private method": ("--method __init__", "unknown method '__init__'"),
    "unknown data set": ("--dataset birds", "unknown dataset 'birds'; known: "),
    "data set by its path": ("--dataset /data/birds", "unknown dataset '/data/birds'"),
    "unknown captioner": ("--captioner qwen_vlm", "unknown captioner 'qwen_vlm'.*'qwen_vl'"),
    "captioner without weights": ("--captioner qwen_vl:path:/no/where", "/no/where"),
    "unknown backbone": ("--backbone resnet", "unknown backbone 'resnet'; known: "),
    "unknown checkpoint": ("--checkpoint sd3", "unknown checkpoint 'sd3'; known: "),
    "checkpoint without weights": ("--checkpoint path:/no/where", "/no/where is no Stable Diffusion checkpoint"),
    "unknown experiment": ("smok", "unknown experiment 'smok'; .*Did you mean 'smoke'"),
    "unknown device": ("--device gpu", "unknown device 'gpu'; known: auto, cpu"),
    "shots larger than a class": ("--shots 2", "class 'heron' has 3 pictures in .*, but 2 shots need 4"),
    "confounding above 1": ("--dataset skyworld:2", "from 0 to 1, got '2'"),
    "negative seed": ("--seed -1", r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
    "seed that no table holds": (f"--seed {2**63}", "seed must be a whole number"),
    "negative limit of rejected": ("--max-rejected -1", "max_rejected must not be negative, got -1"),
    "experiment and a flag of a run": ("smoke --shots 3", "experiment 'smoke' sets its own runs, so --shots changes"),
    "experiment and a flag of a step": ("smoke --draw.per-class=3", "so --draw changes nothing: leave it out"),
    "seeds of no experiment": ("--seeds 0 1", "--seeds is for experiments: name one, or give the one run its --seed"),
    "negative seeds": ("smoke --seeds -3", "seed must be a whole number from 0"),
    "a flag twice, of which the last counts": ("--shots 1 --shots 9", "9 shots need 11"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_ends_in_one_sentence_and_writes_nothing(case: str, tmp_path: Path, bob: Bob) -> None:
    flags, reason = REFUSED[case]
    data = photos(tmp_path / "data")
    before = tree(tmp_path)
    base = [] if flags.startswith("smok") else ["--dataset", f"folder:{data}", *SMALLEST]
    assert re.search(reason, bob.refuses(*base, *flags.split(), "--out", tmp_path / "out"))
    assert {name: held for name, held in tree(tmp_path).items() if name not in ("out", "out/claims")} == before


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--shots three", "invalid literal for int"),
        ("--shots 2.5", "invalid literal for int"),
        ("--shots", "Missing value"),
        ("--checkpoint", "Missing value"),
        ("--shotz 3", "Unrecognized options.*--shots"),
        ("smoke smoke", "Unrecognized options"),
        ("--finetune.lr nan", "lr must be positive, got nan"),
        ("--sweep.lambdas 0.5 1.5", r"lambdas must lie in \[0, 1\], got"),
        ("--draw.steps 1", r"steps must lie in \[2, 999\]"),
        ("--sweep.lrs", "lrs is empty: the sweep needs one value at least"),
    ],
)
def test_what_cannot_be_parsed_is_said_by_the_parser(flags: str, reason: str, tmp_path: Path, bob: Bob) -> None:
    """In a box of several lines, with the flag that may have been meant."""
    code, out, err = bob.run(*flags.split(), "--out", tmp_path / "out")
    assert code == 2
    said = " ".join((out + err).split())
    assert re.search(reason, said)
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path, bob: Bob) -> None:
    assert "unknown device 'cuda'; known: auto, cpu" in bob.refuses("smoke", "--device", "cuda", "--out", tmp_path)


def test_a_library_call_says_the_same(tmp_path: Path) -> None:
    run = Run(dataset=f"folder:{photos(tmp_path / 'data')}", method="real_only", backbone="resnet_mini", shots=2)
    with pytest.raises(ValueError, match=r"class 'heron' has 3 pictures in .*, but 2 shots need 4"):
        pipeline.execute(
            [run], artefacts=Store(str(tmp_path / "out")), executor=inline("cpu"), report=lambda *_: iter(())
        )
