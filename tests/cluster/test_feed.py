"""Order of trainings: longest first, counted with those that wait for them; a final one after its own run's sweep."""

import dataclasses
import json

from ray.tune.search import Searcher

from bob import pipeline
from bob.cluster.feed import Feed
from bob.steps import classify


def suggested(feed: Feed) -> str | None:
    """The target of the next training; None while there is none."""
    found = feed.suggest("x")
    if not isinstance(found, dict):
        return found
    (text,) = found["units"]
    return json.loads(text)["target"]


def test_a_final_training_comes_as_soon_as_its_own_sweep_is_done(base, local):
    cells = [pipeline.split(dataclasses.replace(base, method="real_only", seed=seed), local) for seed in (0, 1)]
    swept = [classify.sweep(cell) for cell in cells]
    finals = [classify.final(cell, points) for cell, points in zip(cells, swept, strict=True)]
    first, second = sorted(range(2), key=lambda k: swept[k][0].group)
    feed = Feed([*swept[0], *swept[1], *finals])
    assert [suggested(feed) for _ in range(2)] == [unit.target for unit in swept[first]]
    feed.done(swept[first][0].target)
    assert suggested(feed) == swept[second][0].target
    feed.done(swept[first][1].target)
    assert suggested(feed) == swept[second][1].target  # with the final that waits for it, longer than a final
    assert suggested(feed) == finals[first].target
    assert suggested(feed) is None
    feed.drop(swept[second][0].target)  # memory ran out
    assert feed.left == [finals[second]]
    assert suggested(feed) == Searcher.FINISHED


def test_points_of_one_run_come_together_and_each_counts_for_its_final(base, local):
    sweep = dataclasses.replace(base.sweep, lrs=(1e-3, 3e-4, 1e-4, 3e-5, 1e-5), weight_decays=(0.0,))
    runs = [dataclasses.replace(base, method="real_only", sweep=sweep, seed=seed) for seed in (0, 1)]
    cells = [pipeline.split(run, local) for run in runs]
    swept = [classify.sweep(cell) for cell in cells]
    finals = [classify.final(cell, points) for cell, points in zip(cells, swept, strict=True)]
    of_run = {points[0].group: (points, final) for points, final in zip(swept, finals, strict=True)}
    feed = Feed([*swept[0], *swept[1], *finals], points=lambda unit: 3)
    assert [len(trial) for trial in feed.trials if len(trial) > 1] == [3, 2, 3, 2]
    came = [json.loads(text) for _ in range(4) for text in feed.suggest("x")["units"]]
    assert sorted(unit["target"] for unit in came) == sorted(unit.target for points in swept for unit in points)
    first, final = of_run[came[0]["group"]]
    assert [unit["target"] for unit in came[:3]] == [unit.target for unit in first[:3]]
    assert {unit["group"] for unit in came[:3]} == {first[0].group}
    for unit in first[:-1]:
        feed.done(unit.target)
    assert suggested(feed) is None  # the last of the group of two is still missing
    feed.done(first[-1].target)
    assert suggested(feed) == final.target


def test_what_was_swept_before_is_not_waited_for(base, local):
    cell = pipeline.split(dataclasses.replace(base, method="real_only"), local)
    final = classify.final(cell, classify.sweep(cell))
    feed = Feed([final])
    assert suggested(feed) == final.target
    assert suggested(feed) == Searcher.FINISHED
