"""Step 3's worker: what is read and written beside the drawing of another unit gives the same, and is told as such."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bob import pipeline
from bob.core.types import Receipt, Unit
from bob.diffusion.compiled import CompiledUnet
from bob.steps import workers
from bob.steps.defaults import defaults
from bob.store import Store, schema
from tests.test_golden_keys import keys


class Captured(Exception):
    """The units are known; nothing is drawn."""


@pytest.fixture
def units(base: Any, artefacts: Store) -> Sequence[Unit]:
    """The units of a run whose images are gone from the store."""
    captured: list[Unit] = []

    def executor(step: str, todo: Sequence[Unit], _: Store) -> Iterator[Receipt]:
        assert step == "generate", "only images are missing"
        captured.extend(todo)
        raise Captured

    for shard in Path(artefacts.root).glob("images/*/part-*"):
        shard.unlink()
    run = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    with pytest.raises(Captured):
        pipeline.execute([run], artefacts=artefacts, executor=executor, report=lambda step, todo, done, receipts: [])
    assert len(captured) == 3
    return captured


def overlapping(artefacts: Store) -> workers.GenerateWorker:
    """A worker that overlaps units, as on a GPU."""
    worker = workers.GenerateWorker(artefacts.root, device="cpu")
    worker._overlaps = True
    return worker


def streamed(worker: workers.GenerateWorker, units: Sequence[Unit]) -> list[Receipt]:
    return list(worker.stream(units))


def called_at_once(worker: workers.GenerateWorker, units: Sequence[Unit]) -> list[Receipt]:
    with concurrent.futures.ThreadPoolExecutor(worker.CALLS) as threads:
        return list(threads.map(worker, units))


@pytest.mark.parametrize("do", [streamed, called_at_once])
def test_units_that_overlap_are_the_same_and_say_so(do: Callable[..., list[Receipt]], units, artefacts, finished):
    receipts = do(overlapping(artefacts), units)
    assert [receipt.target for receipt in receipts] == [unit.target for unit in units]
    for unit in units:
        ours, theirs = (store.read_checked(unit.target, schema.IMAGES)["sha1"] for store in (artefacts, finished))
        assert ours.equals(theirs)
        noted, plain = artefacts.manifest(unit.target), finished.manifest(unit.target)
        assert noted["beside"].keys() == {"read", "png", "write"}
        assert noted["times"].keys() == plain["times"].keys() - {"write"}
        assert noted["seconds"] == pytest.approx(sum(noted["times"].values()), abs=2e-3)
        assert plain["beside"].keys() == {"png"}


def test_an_error_comes_after_the_receipts_of_those_before_it(units, artefacts):
    missing = dataclasses.replace(units[2], work=dataclasses.replace(units[2].work, requests="images/x/requests"))
    receipts: list[str] = []
    with pytest.raises(FileNotFoundError, match="images/x/requests"):
        receipts.extend(receipt.target for receipt in overlapping(artefacts).stream([*units[:2], missing]))
    assert receipts == [unit.target for unit in units[:2]]


def test_an_error_of_a_write_is_raised(units, artefacts, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Store, "write_table", full)
    with pytest.raises(OSError, match="no space left"):
        list(overlapping(artefacts).stream(units))
    assert not any(artefacts.exists(unit.target) for unit in units)


@pytest.mark.parametrize(("choice", "same"), [("off", True), ("on", False)])
def test_only_images_that_must_come_of_a_compiled_network_have_a_key_of_their_own(choice, same):
    run = defaults(checkpoint="skyworld", backbone="resnet_mini", captioner="qwen_vl:skyworld", method="bob")
    other = dataclasses.replace(run, draw=dataclasses.replace(run.draw, compile=choice))
    assert (keys(run)["generate"] == keys(other)["generate"]) is same


def test_a_unit_says_whether_its_network_is_compiled(units, artefacts, monkeypatch):
    said = []
    monkeypatch.setattr(CompiledUnet, "expect", lambda self, rows, *, required: said.append((rows, required)))
    worker = workers.GenerateWorker(artefacts.root, device="cpu")
    worker(units[0])
    assert said == []
    told = dataclasses.replace(units[1], work=dataclasses.replace(units[1].work, compile="on"))
    worker(workers.unpacked(workers.packed(told)))
    assert said == [(2 * told.work.batch, True)]


def test_an_unknown_choice_is_refused(base):
    with pytest.raises(ValueError, match="compile must be auto, on or off, got 'yes'"):
        dataclasses.replace(base.draw, compile="yes")
