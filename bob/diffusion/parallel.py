"""Data parallelism of a fine-tune: the processes of torch's process group, if there is one, share each batch.

Gradients are added once a step, after all micro-batches. All processes then make the same optimiser step.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["add_gradients", "part", "rank"]


def rank() -> int:
    """Number of this process in the group, from 0; 0 without a group. Process 0 writes what the group makes."""
    return dist.get_rank() if _is_grouped() else 0


def part(size: int) -> slice:
    """Rows of a batch of `size` that this process computes; empty for some processes if there are more than rows."""
    if not _is_grouped():
        return slice(0, size)
    number, count = dist.get_rank(), dist.get_world_size()
    return slice(number * size // count, (number + 1) * size // count)


def add_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Adds the gradients and the losses of all processes; returns the sum of the losses.

    Each process has to call it at each step: gradients and loss travel together, in one reduction.
    """
    if not _is_grouped():
        return loss
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    summands = [loss, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
    flat = torch.cat([summand.flatten() for summand in summands])
    dist.all_reduce(flat)
    total, *gradients = flat.split([summand.numel() for summand in summands])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.view_as(parameter)
    return total.reshape(())


def _is_grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
