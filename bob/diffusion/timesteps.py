"""Timesteps that a U-Net is given, kept on its device."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bob.core.transfer import send

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

__all__ = ["by_name", "keep_on_device"]


def by_name(args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call of the U-Net, all by diffusers' names for them."""
    return dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | named


def keep_on_device(unet: "UNet2DConditionModel") -> None:
    """Installs a hook by which each timestep of the CPU is copied to the U-Net's GPU but once, without a wait.

    Samplers keep theirs on the CPU, where they look up their tables; the U-Net would copy one at each evaluation, and
    wait for all that the GPU has to do before.

    Args:
        unet: on a GPU.
    """
    kept: dict[int, Tensor] = {}

    def replace(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = by_name(args, named)
        number = int(given["timestep"])
        if number not in kept:
            kept[number] = send(torch.tensor(number), given["sample"].device)
        return (), given | {"timestep": kept[number]}

    unet.register_forward_pre_hook(replace, with_kwargs=True, prepend=True)
