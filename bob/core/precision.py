"""Arithmetic of a training: float32, TF32 or half precision, set explicitly where torch has defaults that differ."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["arithmetic", "autocast", "autocast_dtype"]

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precision -> dtype of autocast."""


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Context of forward and backward passes: what float32 means on a GPU; restores torch's settings afterwards.

    Torch computes float32 convolutions in TF32 (10 bits of mantissa) and float32 matrix products in float32, unless
    told otherwise. Here `float32` sets exactly that: the paper trains without mixed precision (Table 4) by DataDream's
    script, which leaves both settings as they are, so this is what its figures were computed with. `tf32` computes
    matrix products in TF32 too. Under `bfloat16` and `float16`, what autocast leaves in float32 is as under `float32`.

    Args:
        precision: one of the four.
        device: the training's device; nothing is set on a CPU, which has no TF32.
    """
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            backends: Any = torch.backends  # torch.backends.cudnn.conv is set at import, unseen by type checkers
            stack.enter_context(_set(backends.cuda.matmul, "tf32" if precision == "tf32" else "ieee"))
            stack.enter_context(_set(backends.cudnn.conv, "tf32"))
        yield


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context of a forward pass: products in half precision under `bfloat16` and `float16`; weights stay in float32."""
    half = _HALF.get(precision)
    return torch.autocast(device.type, half, enabled=half is not None)


def autocast_dtype(kind: str) -> torch.dtype | None:
    """Dtype in which autocast, where it is on, computes products on a kind of device; None where it is off."""
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


@contextlib.contextmanager
def _set(backend: Any, value: str) -> Iterator[None]:
    before = backend.fp32_precision
    backend.fp32_precision = value
    try:
        yield
    finally:
        backend.fp32_precision = before
