"""Loss (Equation 1), mixing, batches, schedule and random search of the classifier, against values by hand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from bob.classifier import loss as recipe
from bob.core.settings import SweepSettings

# -- Eq. 1 --------------------------------------------------------------------------------------

LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
HARD = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
NONE = torch.zeros(0, 2)
# -log(3/4) and -log(1/2), averaged; of the soft target: .25 * -log(1/4) + .75 * -log(3/4)
REAL = (-math.log(0.75) - math.log(0.5)) / 2
SOFT = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)


@pytest.mark.parametrize(("lam", "expected"), [(1.0, REAL), (0.0, SOFT), (0.8, 0.8 * REAL + 0.2 * SOFT)])
def test_loss_weighs_the_means_of_its_parts(lam, expected):
    loss = recipe.weighted_cross_entropy(LOGITS, HARD, LOGITS[:1], torch.tensor([[0.25, 0.75]]), lam=lam)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_an_empty_part_contributes_nothing():
    assert recipe.weighted_cross_entropy(LOGITS, HARD, NONE, NONE, lam=1.0).item() == pytest.approx(REAL)
    assert recipe.weighted_cross_entropy(LOGITS, HARD, NONE, NONE, lam=0.8).item() == pytest.approx(0.8 * REAL)
    assert recipe.weighted_cross_entropy(NONE, NONE, LOGITS, HARD, lam=0.8).item() == pytest.approx(0.2 * REAL)


# -- mixing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_mixup", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_mixed_targets_are_the_shares_of_the_pixels(use_mixup, seed):
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 10, 10)  # channel k is who a pixel is from
    mixed, targets = recipe.mix(images, torch.eye(4), torch.Generator().manual_seed(seed), use_mixup=use_mixup)
    assert torch.allclose(mixed.mean(dim=(2, 3)), targets, atol=1e-6)
    assert torch.allclose(targets.sum(1), torch.ones(4))


def test_without_mixup_every_pixel_is_from_one_picture():
    images = torch.rand(4, 3, 8, 8)
    for seed in range(10):
        mixed, _ = recipe.mix(images, torch.eye(4), torch.Generator().manual_seed(seed), use_mixup=False)
        assert ((mixed == images) | (mixed == images.roll(1, 0))).all()


def test_a_part_of_one_picture_is_not_mixed():
    image, target = torch.rand(1, 3, 8, 8), torch.ones(1, 1)
    assert recipe.mix(image, target, torch.Generator().manual_seed(0)) == (image, target)


# -- batches and schedule -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "drawn", "copies", "batch"), [(50, 1000, 20, 64), (50, 0, 40, 64), (7, 30, 3, 8), (3, 2, 1, 64)]
)
def test_an_epoch_deals_every_picture_evenly(real, drawn, copies, batch):
    plan = recipe.batches(real, drawn, copies=copies, batch=batch, generator=torch.Generator().manual_seed(0))
    assert len(plan) == math.ceil((real * copies + drawn) / batch)
    assert sorted(np.concatenate([r for r, _ in plan])) == sorted([*range(real)] * copies)
    assert sorted(np.concatenate([s for _, s in plan])) == [*range(drawn)]
    assert max(len(r) + len(s) for r, s in plan) <= batch
    for sizes in ([len(r) for r, _ in plan], [len(s) for _, s in plan]):
        assert max(sizes) - min(sizes) <= 1


def test_schedule_warms_up_and_ends_at_its_floor():
    rates = [recipe.learning_rate(k, steps=11, warmup=4, start=0.2, peak=1.0, floor=0.2) for k in range(11)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[7] == pytest.approx(0.6)
    assert rates[10] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))


def test_a_warm_up_may_begin_below_where_the_cosine_ends():
    """MAE's: from 0, to its smallest rate."""
    rates = [recipe.learning_rate(k, steps=9, warmup=2, start=0.0, peak=1.0, floor=0.5) for k in range(9)]
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[8] == 0.5


def test_smoothing_spreads_a_part_of_any_label():
    soft = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    assert torch.allclose(recipe.smoothed(soft, 0.1), torch.tensor([[0.05, 0.95], [0.275, 0.725]]))
    assert torch.equal(recipe.smoothed(soft, 0.0), soft)


def test_mixups_share_follows_its_beta():
    """Beta(0.8, 0.8) has mean 1/2 and variance 1 / (4 * 2.6); at the median every one of them is 1/2."""
    images, targets = torch.zeros(2, 3, 2, 2), torch.eye(2)

    def share(seed: int, alpha: float) -> float:
        generator = torch.Generator().manual_seed(seed)
        return float(recipe.mixup(images, targets, generator, alpha=alpha)[1][0, 0])

    drawn = np.array([share(seed, 0.8) for seed in range(2000)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.var() == pytest.approx(1 / 10.4, abs=0.006)
    uniform = float(torch.rand((), generator=torch.Generator().manual_seed(1)))
    assert share(1, 1.0) == pytest.approx(uniform)
    assert (share(1, 0.8) - 0.5) * (uniform - 0.5) > 0


# -- points ---------------------------------------------------------------------------------------


def test_a_random_search_stays_between_the_ends_of_the_grid():
    sweep = SweepSettings(
        lrs=(1e-2, 1e-4), weight_decays=(1e-2, 0.0), layer_decays=(0.65, 0.75), search="random", samples=40
    )
    points = sweep.points(has_synthetic=True, seed=3)
    assert len(set(points)) == 40
    assert all(1e-4 <= p.lr <= 1e-2 and 0 <= p.weight_decay <= 1e-2 for p in points)
    assert all(0.5 <= p.lam <= 0.8 and 0.65 <= p.layer_decay <= 0.75 for p in points)
    assert 8 <= sum(p.lr < 1e-3 for p in points) <= 32  # uniform in the logarithm
    assert points == sweep.points(has_synthetic=True, seed=3)
    assert points[:5] == dataclasses.replace(sweep, samples=5).points(has_synthetic=True, seed=3)
    assert points != sweep.points(has_synthetic=True, seed=4)
    assert {p.lam for p in sweep.points(has_synthetic=False)} == {1.0}


def test_a_search_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="search must be grid, random or asha, got 'best'"):
        SweepSettings(search="best")
