"""The training recipe against hand values: Eq. 1, mixing, batches, schedule."""

import itertools
import math

import numpy as np
import pytest
import torch

from bob import recipe

# -- Eq. 1 --------------------------------------------------------------------------------------

LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
HARD = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
NONE = torch.zeros(0, 2)
# -log(3/4) and -log(1/2), averaged; of the soft target: .25 * -log(1/4) + .75 * -log(3/4)
REAL = (-math.log(0.75) - math.log(0.5)) / 2
SOFT = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)


@pytest.mark.parametrize(("lam", "expected"), [(1.0, REAL), (0.0, SOFT), (0.8, 0.8 * REAL + 0.2 * SOFT)])
def test_loss_weighs_the_means_of_its_parts(lam, expected):
    loss = recipe.loss(LOGITS, HARD, LOGITS[:1], torch.tensor([[0.25, 0.75]]), lam=lam)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_an_empty_part_contributes_nothing():
    assert recipe.loss(LOGITS, HARD, NONE, NONE, lam=1.0).item() == pytest.approx(REAL)
    assert recipe.loss(LOGITS, HARD, NONE, NONE, lam=0.8).item() == pytest.approx(0.8 * REAL)
    assert recipe.loss(NONE, NONE, LOGITS, HARD, lam=0.8).item() == pytest.approx(0.2 * REAL)


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
    rates = [recipe.learning_rate(k, steps=11, warmup=4, peak=1.0, floor=0.2) for k in range(11)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[7] == pytest.approx(0.6)
    assert rates[10] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
