"""Saved training states: restored whole, only by the training that saved them, or not at all."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bob.core.training_state import pack, unpack

HELD = {"step": 3, "rows": [{"epoch": 1, "loss": 0.25}], "weights": {"a": torch.arange(6.0).reshape(2, 3)}}
STATE = pack("mine", HELD)


def unpacked(state: bytes | None, identity: str = "mine"):
    told: list[str] = []
    return unpack(state, identity, tell=told.append), told


def test_what_was_packed_comes_back():
    found, told = unpacked(STATE)
    assert found is not None
    assert torch.equal(found["weights"].pop("a"), HELD["weights"]["a"])
    assert found == {**HELD, "weights": {}}
    assert told == []


def test_nothing_gives_nothing():
    assert unpacked(None) == (None, [])


def test_the_state_of_another_training_is_not_used():
    assert unpacked(STATE, "yours") == (
        None,
        ["the state to resume from is that of another training: starts from the beginning"],
    )


@given(keep=st.integers(0, len(STATE) - 1))
@settings(deadline=None)
def test_a_state_that_was_cut_off_is_not_used(keep):
    found, (line,) = unpacked(STATE[:keep])
    assert found is None
    assert "damaged" in line


@given(place=st.integers(0, len(STATE) - 1), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_single_wrong_bit_is_noticed(place, bit):
    changed = bytearray(STATE)
    changed[place] ^= 1 << bit
    found, (line,) = unpacked(bytes(changed))
    assert found is None
    assert "damaged" in line
