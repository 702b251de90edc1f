"""Calls of torch's functions, as a pretended GPU sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Call", "names_gpu"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a function of torch."""

    func: Any
    name: str
    args: Any
    kwargs: Any
    onto: torch.device
    """Where its result lies."""
    copies: bool
    """Whether it copies numbers of the GPU to the CPU."""
    ours: Sequence[Any]
    """Tensors of the GPU among its arguments."""
    theirs: Sequence[Tensor]
    """The CPU's."""


def names_gpu(leaf: Any) -> bool:
    """Whether an argument is the name of the GPU."""
    return isinstance(leaf, torch.device | str) and str(leaf).partition(":")[0] == "cuda"
