"""Independent tasks in threads: every answer once, a bounded number at a time, the first error raised."""

import os
import threading

import pytest

from bob.core import threads


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_each_item_is_answered(at_once):
    looks = []
    found = list(threads.as_completed(lambda k: k * k, range(5), at_once=at_once, look=lambda: looks.append(0)))
    assert sorted(found) == [0, 1, 4, 9, 16]
    assert len(looks) == 5


def test_so_many_are_at_work_at_once():
    met = threading.Barrier(3, timeout=30)
    assert list(threads.as_completed(lambda k: met.wait() < 3, range(6), at_once=3)) == [True] * 6


def test_one_after_another_is_the_callers_own_thread():
    found = list(threads.as_completed(lambda k: threading.current_thread(), range(3), at_once=1))
    assert found == [threading.current_thread()] * 3


def test_what_is_raised_is_raised_and_nothing_more_is_begun():
    begun = []

    def do(k: int) -> None:
        begun.append(k)
        raise KeyError(k)

    with pytest.raises(KeyError):
        list(threads.as_completed(do, range(100), at_once=1, every=1.0))
    assert begun == [0]


def test_a_look_is_taken_while_an_answer_is_waited_for():
    seen = threading.Event()
    assert list(threads.as_completed(lambda k: seen.wait(30), [0], at_once=1, look=seen.set, every=0.01)) == [True]


def test_a_fixed_number_of_torch_threads_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an error; and a process that the block starts, or torch where it is imported later, has it too."""
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, seen = torch.get_num_threads(), list[tuple[int, str]]()

    @threads.fixed(before + 2)
    def fail() -> None:
        seen.append((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [(before + 2, str(before + 2))]
    assert torch.get_num_threads() == before
    assert "OMP_NUM_THREADS" not in os.environ
