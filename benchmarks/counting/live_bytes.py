"""Counts the bytes of live tensors on torch's meta device, where a model has shapes and no numbers.

A model of any size runs forward and backward in seconds without memory, and each tensor's bytes are known from its
creation to its release. Three things that a GPU does otherwise are replaced: attention is torch's memory-efficient
one, which saves its inputs, its output and the logarithms of the sums, and never the scores; dropout is the fused one,
which saves a byte an element; and `autocast` casts as torch.autocast("cuda", bfloat16) does, which torch does not offer
for the meta device.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bob.core import precision as core_precision

__all__ = ["LiveBytes", "autocast", "flops", "peak", "quietly", "slope", "trained"]

_BLOCK = 512
"""Bytes to which torch's allocator rounds a CUDA tensor."""
_LOWER = ((functional, ("linear", "conv2d")), (torch, ("matmul", "bmm", "baddbmm")))
"""Functions that CUDA's autocast computes in bfloat16, as far as these models call them; attention is another."""
_HIGHER = ((functional, ("layer_norm", "group_norm", "softmax", "mse_loss", "cross_entropy")),)
"""Functions that it computes in float32."""


class LiveBytes(TorchDispatchMode):
    """Counts, inside a with block, the bytes of all tensors on the meta device that are alive."""

    def __init__(self, *models: nn.Module) -> None:
        """Begins with the bytes of models."""
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: dict[int, weakref.ref] = {}
        for model in models:
            for tensor in (*model.parameters(), *model.buffers()):
                self._add(tensor)
        self.weights = self.now
        """Bytes of the models."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == "meta":
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = -(-storage.nbytes() // _BLOCK) * _BLOCK

        def release(_: Any) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, release)
        self.now += size
        self.peak = max(self.peak, self.now)


@contextlib.contextmanager
def _efficient_attention(cast: torch.dtype | None = None) -> Iterator[None]:
    """Inside the block torch computes attention as on a GPU, in `cast` if that is given."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,  # small beside the scores: left out
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        parts = (x.to(cast) for x in (query, key, value)) if cast else (query, key, value)
        operator = torch.ops.aten._scaled_dot_product_efficient_attention
        return operator(*parts, None, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale)[0]

    with mock.patch.object(functional, "scaled_dot_product_attention", attention):
        yield


@contextlib.contextmanager
def autocast(precision: str) -> Iterator[None]:
    """Inside the block modules compute in `bfloat16` by autocast, or in `float32`; attention is memory-efficient."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_efficient_attention(torch.bfloat16 if precision == "bfloat16" else None))
        stack.enter_context(mock.patch.object(functional, "dropout", _fused_dropout))
        # A model may leave torch's own autocast for a product of few numbers, which is not worth counting.
        stack.enter_context(mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()))
        half = torch.bfloat16 if precision == "bfloat16" else None
        stack.enter_context(mock.patch.object(core_precision, "autocast_dtype", return_value=half))
        if half:
            for functions, dtype in ((_LOWER, torch.bfloat16), (_HIGHER, torch.float32)):
                for module, names in functions:
                    for name in names:
                        changed = _casting(getattr(module, name), dtype)
                        stack.enter_context(mock.patch.object(module, name, changed))
        yield


def _fused_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p else input


def _casting(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def casting(*args: Any, **kwargs: Any) -> Tensor:
        return function(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return casting


def slope(peak: Callable[[int], int], *, few: int = 2, many: int = 4) -> tuple[int, int]:
    """(bytes that an image adds, bytes of no image) of a peak that is linear in the images."""
    low, high = peak(few), peak(many)
    image = round((high - low) / (many - few))
    return image, low - few * image


def peak(do: Callable[[], Any], *models: nn.Module) -> int:
    """Peak bytes of what is done, beside the models' weights."""
    for model in models:
        model.zero_grad()
    with LiveBytes(*models) as live:
        do()
    for model in models:
        model.zero_grad()
    return live.peak - live.weights


def quietly(do: Callable[[], Any]) -> Any:
    """Result of what is done without gradients."""
    with torch.no_grad(), autocast("float32"):
        return do()


def flops(do: Callable[[], Any]) -> float:
    """Floating-point operations of the matrix products, convolutions and attentions of what is done."""
    with FlopCounterMode(display=False) as counter:
        do()
    return float(counter.get_total_flops())


def trained(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
