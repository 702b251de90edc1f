"""Copies from the CPU to a GPU for which the CPU does not wait."""

import torch
from torch import Tensor

__all__ = ["pinned", "send"]


def pinned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor on the CPU, from which `send` copies to a GPU directly.

    Memory that the driver has pinned is copied while the CPU goes on; any other it copies first, and waits. Torch keeps
    what it has pinned, and gives it out again only once the copies out of it have ended.
    """
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor of the CPU on a device, by way of pinned memory if that is a GPU; not to be changed afterwards."""
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = pinned(tuple(tensor.shape), tensor.dtype, device).copy_(tensor)
    return tensor.to(device, non_blocking=True)
