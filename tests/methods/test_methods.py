"""Every registered method on toy shots, without weights or torch; a new file is covered with no edit here."""

import dataclasses
import subprocess
import sys
from collections import Counter

import pytest
from scipy.stats import chi2_contingency, chisquare

from bob import methods
from bob.commands import methods as listed
from bob.core import registry
from bob.core.budget import Budget, budget
from bob.core.settings import DrawSettings
from bob.core.types import Context, Request, Shot, TrainingSet
from tests.paths import ROOT

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
    superclass="animal",
    class_names=NAMES,
    shots=SHOTS,
    budget=budget([4, 4, 4], per_class=5, long_tail=False),
    contexts=CONTEXTS,
    suffixes=("by the sea", "at night"),
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
def test_draws_what_the_budget_says_and_what_its_filter_takes(name):
    method = methods.load(name)
    training = dataclasses.replace(TRAINING, budget=Budget(drawn=(3, 0, 7), copies=2, alone=4))
    drawn = Counter(request.class_id for request in method.requests(training, draw=DrawSettings(per_class=5), seed=0))
    assert drawn in ({0: method.asked(training, 0), 2: method.asked(training, 2)}, {})  # nothing where nothing ever is
    assert bool(drawn) == bool(requests(name))
    asked = [method.asked(training, k) for k in range(3)]
    assert asked == [3, 0, 7] if method.filtered(training) is None else asked > [3, 0, 7]


@every_method
def test_drawing_more_keeps_what_was_drawn(name):
    few, many = (set(requests(name, per_class=n)) for n in (2, 5))
    assert few <= many
    assert len({(r.class_id, r.index) for r in many}) == len(many)


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
        "import sys\nfrom bob import methods\nfrom bob.core import registry\n"
        "for name in registry.names('method'): methods.load(name)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
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


# -- the baselines ------------------------------------------------------------------------------

DIFF_MIX = ("diff_gen", "diff_aug", "diff_mix", "diff_ii")


def tailed(*counts: int) -> TrainingSet:
    """The toy with so many shots of each class."""
    kept = tuple(shot for shot in SHOTS if int(shot.image_id[-1]) < counts[shot.class_id])
    return dataclasses.replace(TRAINING, shots=kept, budget=budget(counts, per_class=20, long_tail=True))


@every_method
def test_names_of_classes_are_never_tokens_or_paths(name):
    """A class may be called anything: what a fine-tune saves goes by the class id."""
    for token in methods.load(name).tuning(TRAINING).tokens:
        assert token.name.startswith("<class_")
        assert not any(called in token.name for called in NAMES)


@every_method
def test_what_is_tuned_is_something_or_nothing_is_shown(name):
    method = methods.load(name)
    tuning = method.tuning(TRAINING)
    assert tuning.unet or tuning.text_encoder or tuning.tokens
    assert {token.name for token in tuning.tokens} <= {
        word for p in method.train_pairs(TRAINING) for word in p.prompt.split()
    }


@every_method
@pytest.mark.parametrize("training", [TRAINING, tailed(4, 2, 1)])
def test_sources_are_shots_and_as_many_as_the_kind_wants(name, training):
    ids = {shot.image_id for shot in training.shots}
    wanted = {"text2img": {0}, "img2img": {1}, "circle": {1, 2}}
    for request in methods.load(name).requests(training, draw=DrawSettings(), seed=0):
        assert set(request.source_ids) <= ids
        assert len(request.source_ids) in wanted[request.kind]
        assert 0 < request.strength <= 1
        assert request.scheduler in ("default", "dpm", "ddim")


def test_four_methods_ask_for_one_set_of_weights():
    asked = {(tuple(methods.load(n).train_pairs(TRAINING)), methods.load(n).tuning(TRAINING)) for n in DIFF_MIX}
    assert len(asked) == 1
    ((pairs, tuning),) = asked
    assert {pair.prompt for pair in pairs} == {f"a photo of a <class_{c}> animal" for c in range(3)}
    assert (tuning.unet, tuning.text_encoder, tuning.side, tuning.flip, tuning.each) == (True, False, 224, True, 0)
    assert {token.begins_as for token in tuning.tokens} == {"ktn"}
    assert tuning.dense_tokens
    finetune = methods.load("diff_gen").finetune
    assert (finetune.rank, finetune.total_steps, finetune.batch, finetune.lr) == (10, 35_000, 8, 5e-5)
    assert methods.load("diff_gen").tuning(tailed(4, 2, 1)).each == 1  # every class as often as every other


@pytest.mark.parametrize(
    ("strength", "gamma", "share"),
    [(1.0, 0.5, 1.0), (0.7, 0.5, 0.837), (0.7, 0.8, 0.752), (0.8, 0.5, 0.894), (1e-12, 0.5, 0.0)],
)
def test_diff_mix_shares_the_label_by_strength(strength, gamma, share):
    drawn = requests(f"diff_mix:strength={strength},gamma={gamma}", per_class=50)
    sources = {shot.image_id: shot.class_id for shot in SHOTS}
    for request in drawn:
        label = dict.fromkeys(range(3), 0.0) | dict(zip(request.label_ids, request.label_weights, strict=True))
        source = sources[request.source_ids[0]]
        wanted = 1.0 if source == request.class_id else share
        assert label[request.class_id] == pytest.approx(wanted, abs=1e-3)
        assert sum(label.values()) == pytest.approx(1)
        assert request.prompt == f"a photo of a <class_{request.class_id}> animal"


def test_diff_mix_draws_sources_uniformly_over_classes_or_over_a_long_tails_images():
    classes = {shot.image_id: shot.class_id for shot in SHOTS}
    counts = [[0] * 3 for _ in NAMES]
    for request in requests("diff_mix", per_class=1500):
        counts[request.class_id][classes[request.source_ids[0]]] += 1
    assert chi2_contingency(counts).pvalue > 0.01  # whatever the target is
    assert chisquare([sum(column) for column in zip(*counts, strict=True)]).pvalue > 0.01
    few = tailed(4, 2, 1)
    few = dataclasses.replace(few, budget=Budget(drawn=(700, 700, 700), copies=1, alone=1))
    drawn = Counter(r.source_ids[0] for r in methods.load("diff_mix").requests(few, draw=DrawSettings(), seed=0))
    assert chisquare([drawn[shot.image_id] for shot in few.shots]).pvalue > 0.01


def test_diff_mix_asks_for_112_to_keep_100():
    training = dataclasses.replace(TRAINING, budget=budget([4, 4, 4], per_class=100, long_tail=False))
    method = methods.load("diff_mix")
    assert [method.asked(training, k) for k in range(3)] == [112] * 3
    assert methods.load("diff_mix:filter=off").asked(training, 0) == 100
    assert not method.mixup
    assert method.filtered(training).texts == ("a photo with a animal on it", "a photo without a animal on it")


@pytest.mark.parametrize(("name", "strengths"), [("diff_aug", (0.7,)), ("da_fusion", (0.25, 0.5, 0.75, 1.0))])
def test_every_shot_is_redrawn_equally_often_at_every_strength(name, strengths):
    drawn = Counter((r.class_id, r.source_ids[0], r.strength) for r in requests(name, per_class=80))
    assert set(drawn.values()) == {20 // len(strengths)}
    assert len(drawn) == len(SHOTS) * len(strengths)
    classes = {shot.image_id: shot.class_id for shot in SHOTS}
    assert all(classes[source] == class_id for class_id, source, _ in drawn)


@pytest.mark.parametrize(
    ("shots", "strength"), [(1, 0.5), (2, 0.4), (4, 0.35), (5, 0.35), (8, 0.2), (10, 0.2), (16, 0.15), (30, 0.15)]
)
def test_real_guidance_noises_less_the_more_shots_there_are(shots, strength):
    many = tuple(dataclasses.replace(SHOTS[0], image_id=f"0-{k}") for k in range(shots))
    training = dataclasses.replace(TRAINING, class_names=NAMES[:1], shots=many)
    drawn = list(methods.load("real_guidance").requests(training, draw=DrawSettings(), seed=0))
    assert {r.strength for r in drawn} == {strength}
    assert {r.prompt for r in drawn} == {"a photo of a F-16A/B"}
    assert methods.load("real_guidance").train_pairs(training) == []


def test_diff_ii_draws_every_pair_of_a_class_alike_and_marks_single_shots():
    drawn = requests("diff_ii", per_class=1200)
    for class_id in range(3):
        pairs = Counter(r.source_ids for r in drawn if r.class_id == class_id)
        assert len(pairs) == 6
        assert chisquare(list(pairs.values())).pvalue > 0.01
    assert {r.prompt for r in drawn if r.class_id == 1} == {
        f"a photo of a <class_1> animal {suffix}" for suffix in TRAINING.suffixes
    }
    assert {r.background for r in drawn} == set(TRAINING.suffixes)
    few = list(methods.load("diff_ii").requests(tailed(4, 2, 1), draw=DrawSettings(), seed=0))
    assert {len(r.source_ids) for r in few if r.class_id == 2} == {1}
    assert {len(r.source_ids) for r in few if r.class_id != 2} == {2}


@pytest.mark.parametrize(
    ("dataset", "shots", "split"),
    [
        ("aircraft", 5, 1.0),
        ("cub", 10, 1.0),
        ("cars", 5, 0.3),
        ("pets", 10, 0.1),
        ("flower_lt:100", 30, 0.3),
        ("toy", 5, 0.3),
    ],
)
def test_diff_ii_changes_prompts_where_its_authors_do(dataset, shots, split):
    many = tuple(dataclasses.replace(SHOTS[0], image_id=f"0-{k}") for k in range(shots))
    training = dataclasses.replace(TRAINING, dataset=dataset, class_names=NAMES[:1], shots=many)
    drawn = methods.load("diff_ii").requests(training, draw=DrawSettings(), seed=0)
    assert {r.switch_at for r in drawn} == {split}


def test_da_fusion_learns_four_images_of_each_class_a_step():
    tuning = methods.load("da_fusion:vectors=4").tuning(TRAINING)
    assert (tuning.unet, tuning.text_encoder, tuning.each, len(tuning.templates)) == (False, False, 4, 27)
    assert [(token.begins_as, token.vectors) for token in tuning.tokens] == [(name, 4) for name in NAMES]
    settings = methods.load("da_fusion").finetune
    assert settings.steps(tuning.epoch([f"<class_{k}>" for k in range(16)])) == 1_000  # 64 images: 4 of each of 16


def test_methods_are_listed(capsys):
    listed.show()
    said = capsys.readouterr().out
    assert all(name in said for name in registry.names("method"))
    assert "strength=0.7" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("diff_aug:strength=big", "diff_aug's switch strength takes a number as in strength=0.7, got 'big'"),
        ("diff_aug:strength=1.5", "strength is a part of the noise schedule, above 0 and at most 1, got 1.5"),
        ("da_fusion:strengths=0.5/2", "strengths is a part of the noise schedule, above 0 and at most 1, got 0.5/2.0"),
        ("da_fusion:vectors=0", "vectors must be positive, got 0"),
        ("diff_mix:gamma=-1", "gamma must be positive, got -1.0"),
        ("diff_ii:split=2", "split is a part of the noise schedule, at most 1, got 2.0"),
        ("diff_mix:filter=no", "unknown value of diff_mix's switch filter 'no'; known: off, on"),
    ],
)
def test_a_switch_out_of_range_says_what_it_takes(name, words):
    with pytest.raises(ValueError, match=words):
        methods.load(name)
