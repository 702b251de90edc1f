"""Timesteps on a GPU: each is copied there once, and the U-Net is given the copy."""

from typing import Any

import torch

from bob.diffusion import timesteps


class Echo(torch.nn.Module):
    """Returns the timestep that it is given."""

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        return timestep


def test_a_timestep_is_copied_once_and_without_a_wait(gpu):
    unet: Any = Echo()
    timesteps.keep_on_device(unet)
    sample = torch.zeros(1, device="cuda")
    first, again, other = (unet(sample, torch.tensor(time), encoder_hidden_states=None) for time in (981, 981, 1))
    assert first.is_cuda
    assert first is again
    assert gpu.waits == []
    assert (int(first), int(other)) == (981, 1)
