"""Host work of a step on torch's meta device: CPU time by activity, operations, and the bytes that these touch.

Meta tensors take a GPU's part: they have shapes and no numbers, so that what remains is what the host does. Three
things that a GPU does otherwise are replaced: reading a meta tensor gives zeros; torch's optimisers take the fused and
the multi-tensor paths that they take on a GPU; and attention is one operation (`live_bytes.autocast`).
"""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Laps", "Operations", "meta_as_gpu"]

_ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh"}
"""Operators that launch nothing, beside views."""
_REST = "rest"


class Laps:
    """CPU time of this process by activity and step; each moment counts for the innermost open activity."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        """Activity -> CPU seconds, of each step so far; `rest` is what no activity covers."""
        self._open, self._since, self._spent = _REST, time.process_time(), dict[str, float]()

    def switch(self, name: str) -> str:
        """Begins an activity; returns the one that it interrupts."""
        now, before = time.process_time(), self._open
        self._spent[before] = self._spent.get(before, 0.0) + now - self._since
        self._open, self._since = name, now
        return before

    def around(self, name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function so that each call is an activity."""

        def timed(*args: Any, **named: Any) -> Any:
            outer = self.switch(name)
            try:
                return do(*args, **named)
            finally:
                self.switch(outer)

        return timed

    def cut(self) -> None:
        """Ends a step."""
        self.switch(self._open)
        self.steps.append(self._spent)
        self._spent = {}

    def best(self) -> dict[str, float]:
        """The step that took least, the first excepted: that is the set-up, or fills caches."""
        return min(self.steps[1:], key=lambda step: sum(step.values()))


class Operations(TorchDispatchMode):
    """Counts, inside a with block, the operations on tensors of a device: each launches a kernel or more on a GPU."""

    def __init__(self, device: str = "meta") -> None:
        """Counts those on `device`, as torch names its kind."""
        super().__init__()
        self._device = device
        self.count = 0
        self.bytes = 0
        """Bytes of all inputs and outputs: what unfused kernels read and write."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func.overloadpacket.__name__ in _ALLOCATES:
            return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if leaves := [leaf for leaf in tensors if leaf.device.type == self._device]:
            self.count += 1
            self.bytes += sum(leaf.nbytes for leaf in leaves)
        return result


@contextlib.contextmanager
def meta_as_gpu() -> Iterator[None]:
    """Inside the block meta tensors are read as zeros, and optimised as those of a GPU are."""
    supported = {"_get_fused_kernels_supported_devices", "_get_foreach_kernels_supported_devices"}
    with contextlib.ExitStack() as stack:
        for module in (importlib.import_module("torch.optim.optimizer"), _foreach_utils):
            for name in supported & set(vars(module)):
                stack.enter_context(mock.patch.object(module, name, return_value=["meta"]))
        for name, read in _READS.items():
            patched = _reading(read, getattr(Tensor, name))
            stack.enter_context(mock.patch.object(Tensor, name, patched))
        stack.enter_context(mock.patch.object(Tensor, "to", _to(Tensor.to)))
        stack.enter_context(mock.patch.object(Tensor, "copy_", _copy(Tensor.copy_)))
        yield


def _zeros(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.zeros(tensor.shape, dtype=dtype or tensor.dtype)


_READS: dict[str, Callable[[Tensor], Any]] = {
    "cpu": _zeros,
    "item": lambda tensor: _zeros(tensor).item(),
    "tolist": lambda tensor: _zeros(tensor).tolist(),
    "__bool__": lambda tensor: False,
    "__int__": lambda tensor: 0,
    "__index__": lambda tensor: 0,
    "__float__": lambda tensor: 0.0,
}
"""Method that reads a tensor -> what it gives of a meta tensor."""


def _reading(read: Callable[[Tensor], Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any, **named: Any) -> Any:
        return read(self) if self.is_meta else original(self, *args, **named)

    return method


def _to(original: Callable[..., Any]) -> Callable[..., Any]:
    def to(self: Tensor, *args: Any, **named: Any) -> Tensor:
        if self.is_meta:
            asked = [getattr(one, "device", one) for one in (*args, *named.values())]
            if any(str(one) == "cpu" for one in asked):
                return _zeros(self, next((one for one in asked if isinstance(one, torch.dtype)), None))
        return original(self, *args, **named)

    return to


def _copy(original: Callable[..., Any]) -> Callable[..., Any]:
    def copy_(self: Tensor, other: Tensor, *args: Any, **named: Any) -> Tensor:
        return self if other.is_meta and not self.is_meta else original(self, other, *args, **named)

    return copy_
