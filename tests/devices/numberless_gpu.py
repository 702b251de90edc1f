"""A pretended GPU for models at full size: its tensors lie on the meta device and take no memory.

Who reads a number gets zero, except of small tensors of integers that come from the CPU or follow from such: a model's
code is steered by token ids, masks and sizes of pictures, and would refuse zeros. (Torch's FakeTensorMode has no
backward pass where torch is built for CUDA and finds no GPU.)
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from tests.devices.calls import Call, names_gpu
from tests.devices.pretended_gpu import GPU, GpuTensor, PretendedGpu

__all__ = ["NumberlessGpu"]

_CPU, _META = torch.device("cpu"), torch.device("meta")
_MOST = 1 << 16  # integers of a tensor whose numbers are kept
_RESHAPES = {"__set__", "set_", "resize_"}
_PRODUCTS = {
    "linear",
    "conv2d",
    "matmul",
    "__matmul__",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "scaled_dot_product_attention",
}


class NumberlessGpu(PretendedGpu):
    """Context in which `cuda` is a pretended GPU without numbers, small tensors of integers excepted."""

    below = _META

    def computed(self, call: Call) -> Any:
        _refuse_mixed_dtypes(call)
        if call.ours and all(_numbers(tensor) is not None for tensor in call.ours) and call.name not in _RESHAPES:
            return self._known(call)
        result = self._unknown(call)
        if not call.ours and call.onto == GPU and _small_integers(result) and not any(x.is_meta for x in call.theirs):
            # From the CPU's numbers, or from none at all, as `arange`: computed again to keep them.
            args, kwargs = tree_map(lambda leaf: _CPU if names_gpu(leaf) else leaf, (call.args, call.kwargs))
            return _kept(self.run(call, args, kwargs, below=_CPU), {})
        return result

    def _known(self, call: Call) -> Any:
        """Result of a call all of whose tensors of the GPU have their numbers."""

        def carried(leaf: Any) -> Any:
            return _CPU if names_gpu(leaf) else leaf.numbers if isinstance(leaf, GpuTensor) else leaf

        args, kwargs = tree_map(carried, (call.args, call.kwargs))
        result = self.run(call, args, kwargs, below=_CPU)
        return result if call.onto == _CPU else _kept(result, {id(tensor.numbers): tensor for tensor in call.ours})

    def _unknown(self, call: Call) -> Any:
        indexes = call.name in ("__getitem__", "__setitem__") and isinstance(call.args[0], GpuTensor)

        def carried(leaf: Any) -> Any:
            if names_gpu(leaf):
                return _META
            if not isinstance(leaf, Tensor):
                return leaf
            with torch._C.DisableTorchFunction():
                if call.copies and isinstance(leaf, GpuTensor):
                    return torch.zeros(leaf.shape, dtype=leaf.dtype)
                return leaf.to(_META) if indexes and leaf.dim() else leaf

        if call.args and isinstance(call.args[0], GpuTensor) and _changes(call.name):
            call.args[0].numbers = None
        return self.run(call, *tree_map(carried, (call.args, call.kwargs)))


def _refuse_mixed_dtypes(call: Call) -> None:
    """Raises where a device with numbers would; the meta device multiplies float16 by float32."""
    if call.name in _PRODUCTS and not torch.is_autocast_enabled("cpu"):  # for which `installed` takes the GPU's
        dtypes = {str(tensor.dtype) for tensor in call.ours if tensor.is_floating_point()}
        if len(dtypes) > 1:
            raise RuntimeError(f"{call.name}: expected the same dtype, but found {' and '.join(sorted(dtypes))}")


def _numbers(tensor: Any) -> Tensor | None:
    """The numbers of a tensor of the GPU, on the CPU; None where they are not known."""
    return getattr(tensor, "numbers", None)


def _changes(name: str) -> bool:
    """Whether a function changes its first argument in place."""
    return name in ("__setitem__", "__set__") or (name.endswith("_") and not name.endswith("__"))


def _small_integers(result: Any) -> bool:
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return bool(tensors) and all(_is_kept(tensor) for tensor in tensors)


def _is_kept(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.numel() <= _MOST


def _kept(result: Any, given: Mapping[int, GpuTensor]) -> Any:
    """Results computed on the CPU as tensors of the GPU; `given` are those that a call may return as they came."""

    def kept(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in given:
            return given[id(leaf)]
        with torch._C.DisableTorchFunction():
            made: Any = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=_META)
            made = made.as_subclass(GpuTensor)
        made.numbers = leaf if _is_kept(leaf) else None
        return made

    return tree_map(kept, result)
