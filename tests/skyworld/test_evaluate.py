"""Quality bars of skyworld's checkpoints: which measurements miss them, and how the model card says so."""

import math
import sys
from pathlib import Path

import pytest

from bob.skyworld import evaluate
from bob.skyworld.card import Measurement, card


@pytest.mark.parametrize(
    ("value", "bar", "at_most", "good"),
    [
        (95.0, 95.0, False, True),
        (94.9, 95.0, False, False),
        (30.0, 30.0, True, True),
        (30.1, 30.0, True, False),
        (math.nan, 95.0, False, False),
        (math.nan, 5.0, True, False),
        (math.nan, None, False, True),
    ],
)
def test_a_bar_is_met_or_missed(value, bar, at_most, good):
    assert Measurement(part="p", what="w", value=value, bar=bar, at_most=at_most).good is good


def test_the_card_shows_each_measurement_and_marks_what_is_missed():
    rows = card(
        "how",
        [
            Measurement(part="ResNet", what="accuracy", value=97.06),
            Measurement(part="captioner", what="pose", value=89.0, bar=90.0),
            Measurement(part="all", what="size", value=6.8, unit="MB", bar=30.0, at_most=True),
            Measurement(part="sd", what="rejected", value=0.0, unit="", bar=0.0, at_most=True),
        ],
    ).splitlines()[-4:]
    assert rows == [
        "| ResNet | accuracy | 97.1 % |  |",
        "| captioner | pose | 89.0 % | at least 90 %, **missed** |",
        "| all | size | 6.8 MB | at most 30 MB |",
        "| sd | rejected | 0 | at most 0 |",
    ]


def test_what_is_drawn_is_spread_over_classes_and_contexts():
    requests, truth = evaluate._requests()
    assert len(requests) == 200
    assert len({request.seed for request in requests}) == 200
    assert {len(set(column)) for column in truth.T} == {60, 12, 6}
    assert requests[0].prompt.count(".") == 1


@pytest.mark.parametrize("part", ["vae", "captioner", "sd", "resnet", "mae", "clip"])
def test_weights_that_are_not_there_are_named(part, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluate", "--weights", str(tmp_path / "none"), "--only", part])
    assert evaluate.main() == 2
    assert str(Path("none")) in capsys.readouterr().err


def test_all_that_is_shipped_is_small(monkeypatch, capsys):
    """The bar on the size, on the folder that is shipped."""
    shipped = Path(evaluate.__file__).parent / "weights"
    monkeypatch.setattr(sys, "argv", ["evaluate", "--weights", str(shipped), "--only"])
    assert evaluate.main() == 0
    assert "at most 30 MB" in capsys.readouterr().out
