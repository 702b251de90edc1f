"""Suffixes of Diff-II: condensed from captions, or read from a list."""

from pathlib import Path

import pytest

from bob.core.types import Context
from bob.methods import _suffixes


def contexts(*backgrounds: str) -> list[Context]:
    return [Context(background=text, pose="") for text in backgrounds]


def test_few_backgrounds_are_all_suffixes_the_most_frequent_first():
    made = _suffixes.condense(contexts("sea", "grey runway", "sea", "  grey  runway", "sea", "sky"))
    assert made == ("in the sea background", "in the grey runway background", "in the sky background")


def test_many_backgrounds_are_condensed_into_ten_that_differ():
    words = ["sea", "sky", "forest", "desert", "runway", "city", "field", "snow", "night", "dawn", "lake", "bridge"]
    places = [f"{what} {word}" for word in words for what in ("clear", "cloudy", "dark")]
    made = _suffixes.condense(contexts(*places, *places[:2]))
    assert len(made) == len(set(made)) == 10
    assert len({text.split()[3] for text in made}) == 10  # of twelve places ten, not one of them thrice
    assert made == _suffixes.condense(contexts(*reversed([*places, *places[:2]])))


def test_a_list_of_suffixes_is_read_line_by_line(tmp_path: Path):
    assert _suffixes.parse("by the sea\n\n  at night \n", "x") == ("by the sea", "at night")
    with pytest.raises(ValueError, match="x lists no suffixes"):
        _suffixes.parse(" \n", "x")
