"""Files that each step opens, watched as it runs: no test image before the final training."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bob import pipeline
from bob.core.types import Receipt, Unit
from bob.steps import workers
from bob.store import Store, schema
from tests import tiny
from tests.miniatures import MINIATURES

_OPENED: list[str] = []
_WATCHING: list[Path] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING and event == "open" and str(arguments[0]).startswith(str(_WATCHING[0])):
        _OPENED.append(str(arguments[0]))


sys.addaudithook(_hook)  # cannot be taken off again; it looks at nothing while nobody watches


@pytest.mark.parametrize("name", ["pets", "cub_lt:10"])
def test_no_test_image_is_opened_before_the_final_training(
    name: str, untrained_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = MINIATURES[name.partition(":")[0]](tmp_path)
    monkeypatch.setenv("BOB_CACHE", str(tmp_path / "cache"))
    run = dataclasses.replace(
        tiny.run(f"{name}:{folder}", untrained_sd), method="bob", captioner="qwen_vl:skyworld", descriptor=""
    )
    if ":" in name:
        run = dataclasses.replace(run, shots=0)
    opened: dict[str, set[str]] = {}
    plain = workers.inline("cpu")

    def executor(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
        for unit in units:
            _OPENED.clear()
            _WATCHING.append(folder)
            yield from plain(step, [unit], artefacts)
            _WATCHING.clear()
            phase = unit.planned
            opened.setdefault(phase, set()).update(str(Path(path).relative_to(folder)) for path in _OPENED)

    artefacts = Store(str(tmp_path / "out"))
    (outcome,) = pipeline.execute([run], artefacts=artefacts, executor=executor, report=lambda *of: of[-1])
    split: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for row in artefacts.read_checked(outcome.split, schema.SHOTS).to_pylist():
        split[row["split"]].add(row["path"])
    every = set.union(*split.values())
    assert {step: paths & every for step, paths in opened.items()} == {
        "caption": split["train"],
        "finetune": split["train"],
        "generate": set(),
        "sweep": split["train"] | split["val"],
        "final": split["test"],  # the others lie decoded on the node's disk
    }
