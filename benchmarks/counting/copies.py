"""Copies between host and device, and waits, of code that runs on the tests' pretended GPU."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.devices.numberless_gpu import NumberlessGpu
from tests.devices.pretended_gpu import GpuTensor, PretendedGpu

__all__ = ["Copies", "NumberlessCopies"]

_MAKES = ("tensor", "as_tensor", "asarray")
"""Functions that make a tensor on the device from numbers of the host."""
_SOURCE = {"to": 0, "cuda": 0, "type_as": 0, "copy_": 1, "__setitem__": 2}
"""Function that copies -> position of the argument that it copies."""
_ASYNC = {"to": (2, 3), "copy_": (2,), "cuda": (2,)}
"""Function -> positions at which `non_blocking` may stand."""


class _Counting(PretendedGpu):
    """A pretended GPU that counts what is copied to it and back.

    A copy to a real GPU that is not asked to be asynchronous ends with `cudaStreamSynchronize`: the host waits until
    the GPU has done all that was launched before. So it is counted as a wait, beside those for results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_device = self.to_host = 0
        """Bytes."""
        self.copies = self.blocking = 0
        """Copies to the device, and those of them that wait."""

    def now(self) -> dict[str, int]:
        """All counts so far."""
        names = ("to_device", "to_host", "copies", "blocking")
        return {name: getattr(self, name) for name in names} | {"waits": len(self.waits)}

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = super().call(func, args, kwargs)
        name = getattr(func, "__name__", "")
        asynchronous = kwargs.get("non_blocking") or any(args[k : k + 1] == (True,) for k in _ASYNC.get(name, ()))
        for size in _sent(name, args, result):
            self.copies += 1
            self.blocking += not asynchronous
            self.to_device += size
        self.to_host += _returned(name, args, result)
        return result


class Copies(_Counting):
    """`_Counting` with real numbers, for small models."""


class NumberlessCopies(_Counting, NumberlessGpu):
    """`_Counting` for models at full size."""


def _sent(name: str, args: Any, result: Any) -> Iterator[int]:
    """Bytes of each copy of a call to the device."""
    if name in _MAKES and isinstance(result, GpuTensor) and not isinstance(args[0], Tensor):
        yield result.nbytes
    elif name in _SOURCE and len(args) > _SOURCE[name]:
        source, onto = args[_SOURCE[name]], args[0] if _SOURCE[name] else result
        if _on_host(source) and isinstance(onto, GpuTensor) and (source.dim() or name != "__setitem__"):
            yield source.nbytes
    if name in ("__getitem__", "__setitem__") and isinstance(args[0], GpuTensor):  # indices are copied
        yield from (leaf.nbytes for leaf in tree_leaves(args[1]) if _on_host(leaf) and leaf.dim())


def _on_host(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, GpuTensor)


def _returned(name: str, args: Any, result: Any) -> int:
    """Bytes of a call's copies to the host."""
    if not args or not isinstance(args[0], GpuTensor):
        back = name == "copy_" and len(args) > 1 and isinstance(args[1], GpuTensor)
        return args[0].nbytes if back else 0
    if name in ("to", "cpu", "type_as"):
        return result.nbytes if _on_host(result) else 0
    reads = name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__")
    return args[0].nbytes if reads else 0
