"""Parts of an experiment that need nothing of each other go on side by side, and come to the same results."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence

import pytest

from bob import pipeline
from bob.core import threads
from bob.core.settings import Run
from bob.core.types import Receipt, Unit
from bob.steps import workers
from bob.store import Store

INLINE = workers.inline("cpu")


@pytest.fixture
def runs(base) -> list[Run]:
    """Of two seeds; those of the first are more."""
    bare = dataclasses.replace(base, method="real_only")
    return [base, bare, dataclasses.replace(bare, seed=1)]


def passing(step: str, todo: int, done: int, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    return receipts


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


def test_one_part_does_not_wait_for_anothers_step(runs, tmp_path):
    """The first seed's fine-tune waits for the second's last classifier, which step by step would be for ever."""
    ended = threading.Event()

    def executor(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        if step == "finetune":
            assert ended.wait(60)
        yield from INLINE(step, units, artefacts)
        if units[0].target.endswith("final.parquet") and units[0].work["coordinates"]["seed"] == 1:
            ended.set()

    both, apart = Store(str(tmp_path / "both")), Store(str(tmp_path / "apart"))
    found = pipeline.execute(runs, artefacts=both, executor=executor, report=passing, at_once=2)
    wanted = pipeline.execute(runs, artefacts=apart, executor=INLINE, report=passing)
    assert found == wanted
    for outcome in found:
        assert both.read_table(outcome.final).equals(apart.read_table(outcome.final))


def test_a_part_that_fails_ends_the_command_but_not_the_others(runs, tmp_path, capsys):
    def executor(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        if step == "finetune":
            raise ValueError("no such weights")
        return INLINE(step, units, artefacts)

    artefacts = Store(str(tmp_path))
    with pytest.raises(ValueError, match="no such weights"):
        pipeline.execute(runs, artefacts=artefacts, executor=executor, report=passing, at_once=2)
    assert f"{runs[0].dataset} seed 0: stopped: no such weights" in capsys.readouterr().out
    (final,) = (name for name in artefacts.listing() if name.startswith("results/") and name.endswith("final.parquet"))
    assert {row["seed"] for row in artefacts.read_table(final).to_pylist()} == {1}
