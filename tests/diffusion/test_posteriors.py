"""Posteriors of crops: encoded once, and the same whatever is kept and where."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bob.core import memory
from bob.diffusion.posteriors import Crop, Posteriors
from tests.devices import installed
from tests.diffusion.test_diffusion import mini

SIDE = 32
CROPS = [Crop(0, 0, 3, False), Crop(1, 0, 0, False), Crop(0, 0, 3, False), Crop(0, 0, 3, True), Crop(2, 5, 0, False)]
LATER = [Crop(2, 5, 0, False), Crop(0, 0, 4, False), Crop(1, 0, 0, False), Crop(0, 0, 3, True)]


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((32, 40, 3), (32, 32, 3), (44, 32, 3))]


def counted(pipeline: Any) -> list[int]:
    """Grows by the number of images of each call of the encoder."""
    seen: list[int] = []
    pipeline.vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return seen


def directly(pipeline: Any, crop: Crop) -> Tensor:
    """Mean and deviation of one crop, by hand."""
    pixels = pictures()[crop.picture][crop.top : crop.top + SIDE, crop.left : crop.left + SIDE]
    pixels = np.fliplr(pixels).copy() if crop.mirrored else pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = pipeline.vae.encode(image).latent_dist
    return torch.stack([posterior.mean[0], posterior.std[0]])


def test_each_crop_is_encoded_once_and_has_its_own_posterior(untrained_sd):
    pipeline = mini(untrained_sd)
    wanted = [[directly(pipeline, crop) for crop in crops] for crops in (CROPS, LATER)]
    posteriors, seen = Posteriors(pipeline.vae, pictures(), SIDE, flip=True), counted(pipeline)
    for crops, rows in zip((CROPS, LATER), wanted, strict=True):
        assert torch.equal(posteriors(crops), torch.stack(rows))
    assert seen == [1] * 5  # four of the first, one of the second


@pytest.mark.parametrize("room", [1, 2, 3])
def test_what_is_not_kept_changes_no_bit(untrained_sd, monkeypatch, room):
    pipeline = mini(untrained_sd)
    whole = Posteriors(pipeline.vae, pictures(), SIDE, flip=True)
    monkeypatch.setattr(memory, "KEPT_POSTERIORS", room)
    monkeypatch.setattr(memory, "host", lambda: 0)
    small, seen = Posteriors(pipeline.vae, pictures(), SIDE, flip=True), counted(pipeline)
    for crops in (CROPS, LATER, CROPS):
        assert torch.equal(small(crops), whole(crops))
    assert sum(seen) > 5 + 5


def test_room_is_bounded_by_what_can_be_shown_and_by_memory(untrained_sd, monkeypatch):
    vae = mini(untrained_sd).vae
    size = Posteriors(vae, pictures(), SIDE)._near[0].nbytes
    assert len(Posteriors(vae, pictures(), SIDE)._near) == 9 + 1 + 13
    assert len(Posteriors(vae, pictures(), SIDE, flip=True)._near) == 2 * (9 + 1 + 13)
    monkeypatch.setattr(memory, "KEPT_POSTERIORS", 2)
    monkeypatch.setattr(memory, "host", lambda: 16 * 7 * size)
    assert len(Posteriors(vae, pictures(), SIDE)._near) == 7


@pytest.mark.parametrize(("near", "host"), [(2, 1 << 30), (1, 0), (2, 16 * 2 * 8192), (50, 0)])
def test_beside_a_gpu_the_host_keeps_more_and_nothing_waits(untrained_sd, monkeypatch, near, host):
    reference = mini(untrained_sd)
    wanted = [torch.stack([directly(reference, crop) for crop in crops]) for crops in (CROPS, LATER, CROPS)]
    monkeypatch.setattr(memory, "KEPT_POSTERIORS", near)
    monkeypatch.setattr(memory, "host", lambda: host)
    with installed.install(monkeypatch) as gpu:
        pipeline = mini(untrained_sd).to("cuda")
        posteriors, seen = Posteriors(pipeline.vae, pictures(), SIDE, flip=True, at_once=3), counted(pipeline)
        gpu.waits.clear()
        found = [posteriors(crops) for crops in (CROPS, LATER, CROPS)]
        gpu.require({})
        assert all(rows.is_cuda for rows in found)
        for rows, right in zip(found, wanted, strict=True):
            assert torch.allclose(rows.cpu(), right, atol=1e-5)
    assert seen[:2] == [3, 1]  # the first call's four, three at once
    assert (sum(seen) == 5) == (near + len(posteriors._far) >= 4)  # LATER's new one is not shown again


def test_the_hosts_memory_is_what_the_kernel_says():
    free = memory.host()
    assert free is None or 0 < free < 1 << 46
