"""Golden keys: those of some runs of each experiment, as the first version of the store's format made them.

A changed key orphans every artefact that a user has: a rename, a move or a refactoring must change none. Where the
meaning of a step's output changes, its version is raised, and `python -m tests.test_golden_keys` writes the file anew.
"""

import functools
import json
from pathlib import Path

import pytest

from bob.commands import estimate
from bob.core.settings import Run
from bob.paper import experiments
from bob.pipeline import walk
from bob.pipeline.splits import Splits, begin
from bob.steps import caption, classify, finetune
from bob.store import Store

GOLDEN = Path(__file__).with_suffix(".json")


def chosen(experiment: str) -> list[Run]:
    """The first run of each method; of most experiments only the first and the last of these, to save time."""
    first: dict[str, Run] = {}
    for run in experiments.load(experiment, (0,)):
        first.setdefault(run.method, run)
    runs = list(first.values())
    return runs if experiment in ("baselines", "table1") else list(dict.fromkeys([*runs[:1], *runs[-1:]]))


@functools.cache
def keys(run: Run) -> dict[str, str]:
    """Step -> the target of the run's first unit, whose path holds the key; data sets of the paper are stood in for."""
    cell = begin(run, Splits(functools.partial(estimate.dataset_or_stand_in, {}))(run))
    walk._fill_placeholders(cell)
    steps = {"caption": list(caption.units(cell)), "finetune": [unit for unit in [finetune.unit(cell)] if unit]}
    cell.adapter = finetune.adapter(*steps["finetune"] or [None], after=run.after)
    steps["generate"] = list(walk.generations(cell, Store("/nowhere"), writes=False))
    steps["sweep"] = classify.sweep(cell)
    steps["final"] = [classify.final(cell, steps["sweep"])]
    return {"split": cell.split} | {step: made[0].target for step, made in steps.items() if made}


def golden() -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_each_experiment_has_its_keys() -> None:
    assert golden().keys() == experiments.EXPERIMENTS.keys()


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS)
def test_no_key_has_changed(experiment: str) -> None:
    assert {run.method: keys(run) for run in chosen(experiment)} == golden()[experiment]


if __name__ == "__main__":
    found = {name: {run.method: keys(run) for run in chosen(name)} for name in experiments.EXPERIMENTS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
