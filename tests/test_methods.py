"""Every method on toy shots: no weights, no torch. New files are tested unasked."""

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import chi2_contingency, chisquare

from bob import methods, registry
from bob.budget import Budget, budget
from bob.settings import DrawSettings
from bob.types import Context, Request, Shot, TrainingSet

NAMES = ("F-16A/B", "Robin", "Chinese Spaniel")
SHOTS = tuple(
    Shot(
        image_id=f"{c}-{k}",
        sha1=f"{c}{k}",
        path=f"{c}-{k}.png",
        class_id=c,
        class_name=name,
        split="train",
        width=8,
        height=8,
    )
    for c, name in enumerate(NAMES)
    for k in range(4)
)
# Class and context are tied together on purpose, and no two shots share a background or a pose.
CONTEXTS = {
    shot.image_id: Context(background=f"place {shot.image_id}", pose=f"stance {shot.image_id}") for shot in SHOTS
}
TRAINING = TrainingSet(
    dataset="toy",
    descriptor="thing",
    class_names=NAMES,
    shots=SHOTS,
    budget=budget([4, 4, 4], per_class=5, long_tail=False),
    contexts=CONTEXTS,
)
every_method = pytest.mark.parametrize("name", registry.names("method"))


def requests(name: str, *, per_class: int = 5, seed: int = 0, training: TrainingSet = TRAINING) -> list[Request]:
    training = dataclasses.replace(training, budget=budget([4, 4, 4], per_class=per_class, long_tail=False))
    return list(methods.load(name).requests(training, draw=DrawSettings(per_class=per_class), seed=seed))


# -- every method -------------------------------------------------------------------------------


@every_method
def test_draws_each_class_equally_often(name):
    drawn = requests(name)
    counts = Counter(request.class_id for request in drawn)
    assert len({counts[c] for c in range(3)}) == 1
    assert [(r.class_id, r.index) for r in drawn] == sorted((r.class_id, r.index) for r in drawn)


@every_method
def test_draws_what_the_budget_says(name):
    drawn = Counter(
        request.class_id
        for request in methods.load(name).requests(
            dataclasses.replace(TRAINING, budget=Budget(drawn=(3, 0, 7), copies=2, alone=4)),
            draw=DrawSettings(per_class=5),
            seed=0,
        )
    )
    assert drawn in ({0: 3, 2: 7}, {})  # nothing where nothing is ever drawn
    assert bool(drawn) == bool(requests(name))


@every_method
def test_drawing_more_keeps_what_was_drawn(name):
    few, many = (set(requests(name, per_class=n)) for n in (2, 5))
    assert few == {request for request in many if request.index < 2}


@every_method
def test_requests_are_told_apart(name):
    drawn = requests(name)
    for what in ("request_id", "seed"):  # the seed: no two pictures start from the same noise
        assert len({getattr(request, what) for request in drawn}) == len(drawn)
    assert not {r.seed for r in drawn} & {r.seed for r in requests(name, seed=1)}


@every_method
def test_labels_are_distributions_over_the_classes(name):
    for request in requests(name):
        assert sum(request.label_weights) == pytest.approx(1)
        assert len(request.label_ids) == len(request.label_weights)
        assert set(request.label_ids) <= {0, 1, 2}


@every_method
def test_what_is_asked_for_follows_from_the_seed_alone(name):
    assert requests(name) == requests(name)
    method = methods.load(name)
    assert method.train_pairs(TRAINING) == method.train_pairs(TRAINING)


@every_method
def test_learns_from_the_shots_alone(name):
    pairs = methods.load(name).train_pairs(TRAINING)
    assert {pair.image_id for pair in pairs} <= {shot.image_id for shot in SHOTS}


@every_method
def test_draws_with_the_settings_of_the_run(name):
    drawn = methods.load(name).requests(TRAINING, draw=DrawSettings(per_class=2, guidance=3.5, steps=7), seed=0)
    assert {(request.guidance, request.steps) for request in drawn} <= {(3.5, 7)}


@every_method
def test_works_without_contexts_if_it_asks_for_none(name):
    method, bare = methods.load(name), dataclasses.replace(TRAINING, contexts={})
    if not method.needs_captions:
        assert method.train_pairs(bare) == method.train_pairs(TRAINING)
        assert requests(name, training=bare) == requests(name)


@every_method
def test_says_where_it_comes_from(name):
    assert "arXiv:" in methods.load(name).paper
    assert sys.modules[f"bob.methods.{name}"].__doc__


def test_planning_with_any_method_imports_nothing_heavy():
    code = (
        "import sys\nfrom bob import methods, registry\n"
        "for name in registry.names('method'): methods.load(name)\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {f"bob.methods.{name}" for name in registry.names("method")} <= loaded
    assert not loaded & {"torch", "torchvision", "diffusers", "transformers", "peft", "timm", "ray"}


def test_methods_that_draw_nothing_learn_nothing():
    assert requests("real_only") == []
    assert methods.load("real_only").train_pairs(TRAINING) == []


def test_datadream_learns_and_draws_the_bare_class():
    prompts = {c: f"a thing photo of a {name}" for c, name in enumerate(NAMES)}
    assert all(request.prompt == prompts[request.class_id] for request in requests("datadream"))
    pairs = methods.load("datadream").train_pairs(TRAINING)
    assert [(pair.image_id, pair.prompt) for pair in pairs] == [(s.image_id, prompts[s.class_id]) for s in SHOTS]


# -- BOB ----------------------------------------------------------------------------------------


def test_bob_keeps_each_background_with_its_pose():
    for request in requests("bob", per_class=100):
        own = CONTEXTS[SHOTS[request.bank_row].image_id]
        assert (request.background, request.pose) == (own.background, own.pose)


def test_bob_draws_contexts_uniformly_and_regardless_of_class():
    """The marginalisation: P(context | class) is the same for all classes, and uniform over the bank."""
    counts = [[0] * len(SHOTS) for _ in NAMES]
    for request in requests("bob", per_class=2400):
        counts[request.class_id][request.bank_row] += 1
    assert chisquare([sum(column) for column in zip(*counts, strict=True)]).pvalue > 0.01
    assert chi2_contingency(counts).pvalue > 0.01
    assert min(map(min, counts)) > 100


def test_bobs_contexts_of_a_class_are_no_shift_of_anothers():
    """Independent draws, not one sequence that all classes walk through."""
    rows = [[r.bank_row for r in requests("bob", per_class=200) if r.class_id == c] for c in range(3)]
    assert all(sum(a == b for a, b in zip(rows[0], other, strict=True)) < 40 for other in rows[1:])
    assert rows[0] != [r.bank_row for r in requests("bob", per_class=200, seed=1) if r.class_id == 0]


def test_bob_learns_and_draws_with_the_papers_template():
    wanted = "a thing photo of a {} in the {} background with the {} pose."
    for shot, pair in zip(SHOTS, methods.load("bob").train_pairs(TRAINING), strict=True):
        own = CONTEXTS[shot.image_id]
        assert pair.image_id == shot.image_id
        assert pair.prompt == wanted.format(shot.class_name, own.background, own.pose)
    for request in requests("bob"):
        assert request.prompt == wanted.format(NAMES[request.class_id], request.background, request.pose)
        assert request.prompt.count(".") == 1


def test_without_marginalisation_bob_draws_the_bare_class():
    for request in requests("bob:marginalisation=none"):
        assert request.prompt == f"a thing photo of a {NAMES[request.class_id]}"
        assert (request.background, request.pose, request.bank_row) == ("", "", -1)


def test_class_marginalisation_stays_within_the_class():
    drawn = requests("bob:marginalisation=class", per_class=60)
    for c in range(3):
        rows = {request.bank_row for request in drawn if request.class_id == c}
        assert rows == {row for row, shot in enumerate(SHOTS) if shot.class_id == c}


def test_without_preservation_bob_learns_what_datadream_learns():
    for switches in ("preservation=off", "preservation=off,marginalisation=class"):
        assert methods.load(f"bob:{switches}").train_pairs(TRAINING) == methods.load("datadream").train_pairs(TRAINING)
    assert requests("bob:preservation=off") == requests("bob")


def test_methods_differ_in_what_they_ask_for_not_in_noise():
    assert [request.seed for request in requests("bob")] == [request.seed for request in requests("datadream")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bbo", r"unknown method 'bbo'; known: bob, .*Did you mean 'bob'\?"),
        ("bob:marginalization=class", r"unknown switch of method bob 'marginalization'; .*mean 'marginalisation'\?"),
        ("bob:marginalisation=classes", r"unknown value of bob's switch marginalisation 'classes'; known: class, dat"),
        ("bob:preservation", r"unknown value of bob's switch preservation ''; known: off, on"),
        ("datadream:preservation=off", "method datadream has no switches, got 'preservation'"),
    ],
)
def test_an_unknown_name_switch_or_value_says_what_is_known(name, words):
    with pytest.raises(ValueError, match=words):
        methods.load(name)
