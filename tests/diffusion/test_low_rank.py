"""A LoRA in the layer's product: peft's branches up to rounding, in float32 and in half precision."""

import copy
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear
from torch import Tensor

from bob.core.types import Tuning
from bob.diffusion import low_rank
from bob.diffusion.low_rank import LowRankLinear
from tests.diffusion.test_diffusion import filled, mini
from tests.diffusion.test_micro_batches import made


def layers(untrained_sd: Any) -> tuple[LowRankLinear, LowRankLinear]:
    """A layer of the U-Net whose B is not zero, and a copy."""
    pipeline = mini(untrained_sd)
    filled(pipeline, seed=0)
    layer = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_out[0]
    assert isinstance(layer, LowRankLinear)
    assert layer.base_layer.bias is not None
    return layer, copy.deepcopy(layer)


def passed(layer: LowRankLinear, forward: Any, x: Tensor) -> dict[str, Tensor]:
    """Output and gradients of a pass."""
    x = x.clone().requires_grad_()
    result = forward(layer, x)
    (result.float() ** 2).sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.requires_grad}
    assert len(gradients) == 2
    assert layer.base_layer.weight.grad is None
    return {"output": result, "x": x.grad, **gradients}


@pytest.mark.parametrize(("half", "near"), [(False, 1e-6), (True, 2e-2)])
def test_output_and_gradients_are_those_of_the_branch(untrained_sd, half, near):
    one, other = layers(untrained_sd)
    x = torch.randn(3, 7, one.in_features, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        ours, theirs = passed(one, LowRankLinear.forward, x), passed(other, Linear.forward, x)
    assert ours["output"].dtype == theirs["output"].dtype == (torch.bfloat16 if half else torch.float32)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert (ours[name] - theirs[name]).norm() < near * theirs[name].norm(), name


def test_a_disabled_adapter_leaves_the_base_layer(untrained_sd):
    layer, _ = layers(untrained_sd)
    x = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(layer(x), layer.base_layer(x))
    layer.enable_adapters(False)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_a_fine_tune_ends_as_one_with_branches(untrained_sd, monkeypatch):
    ours = made(f"path:{untrained_sd}", Tuning())
    monkeypatch.setattr(low_rank.LowRankLinear, "forward", Linear.forward)
    theirs = made(f"path:{untrained_sd}", Tuning())
    apart = torch.cat([(ours[name] - theirs[name]).flatten() for name in ours]).norm()
    assert 0 < apart < 1e-5 * torch.cat([theirs[name].flatten() for name in ours]).norm()
