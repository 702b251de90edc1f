"""Independent parts of an experiment, executed at once: the results are those of one part after another."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence

import pytest

from bob import pipeline
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


def test_one_part_does_not_wait_for_anothers_step(runs, tmp_path):
    """The first seed's fine-tune waits for the second's last classifier, which step by step would be for ever."""
    ended = threading.Event()

    def executor(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        if step == "finetune":
            assert ended.wait(60)
        yield from INLINE(step, units, artefacts)
        if units[-1].target.endswith("final.parquet") and units[-1].work.coordinates.seed == 1:
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
