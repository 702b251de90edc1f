"""A pretended GPU: tensors that hold numbers in the CPU's memory and say that they lie on `cuda:0`.

Inside `PretendedGpu` all code that asks for a GPU gets such tensors, computes real numbers with them, and meets the
errors of a real one: a call that mixes devices raises, and so does numpy on a tensor of the GPU. Each wait of the CPU
for the GPU is noted with the place in the code that causes it.

`numberless_gpu` has one for models at full size.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.devices.calls import Call, names_gpu
from tests.devices.waits import Wait, place

__all__ = ["GPU", "GpuTensor", "PretendedGpu"]

GPU, _CPU = torch.device("cuda", 0), torch.device("cpu")

_MIXES = {"to", "type_as", "cpu", "copy_", "set_", "__set__", "__getitem__", "__setitem__", "is_set_to"}
_MIXES |= {"_has_compatible_shallow_copy_type", "swap_tensors", "__get__"}
"""Functions that take tensors of both devices; the rest takes a tensor of the CPU beside the GPU's only as a number."""

_OWN_DEVICE = {"copy_", "set_", "__set__", "__getitem__", "__setitem__", "__get__"}
"""Functions whose result lies where their first argument lies, whatever the others are."""

_READS = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal"}
_READS |= {"allclose", "bincount", "repeat_interleave"}
"""Operators whose result, or its shape, needs numbers of their inputs on the CPU, so that it waits for the GPU."""

_INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operators that read a mask among their indices."""


class GpuTensor(Tensor):
    """Numbers in the CPU's memory that say that they lie on `cuda:0`."""

    device = property(lambda self: PretendedGpu.shown or GPU)
    is_cuda = property(lambda self: self.device == GPU)
    is_cpu = property(lambda self: self.device == _CPU)
    is_meta = property(lambda self: self.device.type == "meta")

    def get_device(self) -> int:
        return 0

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        copy._is_param = isinstance(self, torch.nn.Parameter)
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        PretendedGpu.current().note("pickle")
        with torch._C.DisableTorchFunction():
            return self.detach().as_subclass(Tensor).__reduce_ex__(protocol)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    @classmethod
    def __torch_function__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendedGpu.current().call(func, args, kwargs or {})


class PretendedGpu(TorchFunctionMode):
    """Context in which `cuda` is a pretended GPU."""

    _active: "list[PretendedGpu]" = []  # noqa: RUF012
    shown: torch.device | None = None
    """The device that holds the tensors, while torch's own code computes with them and asks for it."""

    below = _CPU
    """The device that holds the tensors."""

    def __init__(self) -> None:
        """Not yet active."""
        super().__init__()
        self.waits: list[Wait] = []
        """In order."""
        self.calls = 0
        """Calls with a tensor of the GPU among their arguments, or one as their result."""
        self._watched = False

    @classmethod
    def current(cls) -> "PretendedGpu":
        """The innermost active one; outside of any, one whose notes nobody reads."""
        return cls._active[-1] if cls._active else cls()

    def __enter__(self) -> "PretendedGpu":
        self._active.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._active.pop()
        super().__exit__(*error)

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"})

    def note(self, operation: str) -> None:
        """Notes a wait at the place where the program is."""
        self.waits.append(Wait(operation=operation, **place()))

    def require(self, allowed: Mapping[str, int]) -> None:
        """Checks that the CPU waited in the named functions only.

        Args:
            allowed: qualified name of a function in this repository -> most waits in it and in what it calls.

        Raises:
            AssertionError: if it waited elsewhere, or more often.
        """
        left, found = Counter(allowed), Counter[str]()
        for wait in self.waits:
            name = next((name for name in wait.functions if left[name] > 0), None)
            if name is None:
                via = f" by way of {wait.library}" if wait.library else ""
                found[f"{wait.operation} at {wait.place} in {wait.functions[0]}{via}"] += 1
            else:
                left[name] -= 1
        if found:
            words = (f"{count} x {place}" if count > 1 else place for place, count in found.items())
            raise AssertionError(f"the CPU waits for the GPU: {'; '.join(words)}")

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What a function of torch gives where `cuda` is a pretended GPU."""
        name = getattr(func, "__name__", "")
        if func is torch.device or name == "_parse_to":
            return func(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        if func is Tensor.backward and isinstance(args[0], GpuTensor) and len(leaves) == 1:
            return self._backward(args[0])
        if func is Tensor.__iter__:
            return iter(self.call(Tensor.unbind, args, {}))
        if func is Tensor.is_pinned:
            return True
        kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
        ours = [leaf for leaf in leaves if isinstance(leaf, GpuTensor)]
        theirs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, GpuTensor)]
        asked = _asked(name, args, kwargs, leaves)
        _refuse_mixture(name, args, ours, theirs)
        _refuse_generator(name, leaves, asked or (GPU if ours else None))
        onto = asked or (GPU if (isinstance(args[0], GpuTensor) if name in _OWN_DEVICE else ours) else _CPU)
        self.calls += bool(ours) or onto == GPU
        copies = (bool(ours) and name == "tolist") or (onto == _CPU and _is_copy(name, args, kwargs))
        if copies and not kwargs.get("non_blocking"):
            self.note(name)
        call = Call(func=func, name=name, args=args, kwargs=kwargs, onto=onto, copies=copies, ours=ours, theirs=theirs)
        return tree_map(_moved(GpuTensor if onto == GPU else Tensor), self.computed(call))

    def computed(self, call: Call) -> Any:
        """Result of a call that is allowed, as tensors of the device that holds them."""
        return self.run(call, *tree_map(lambda leaf: _CPU if names_gpu(leaf) else leaf, (call.args, call.kwargs)))

    def run(self, call: Call, args: Any, kwargs: Any, *, below: torch.device | None = None) -> Any:
        """Result of a call's function with other arguments, which lie `below`; notes what it reads."""
        with torch._C.DisableTorchFunction(), self._watching(call.ours, call.theirs), self.inside(below):
            return call.func(*args, **kwargs)

    def _backward(self, loss: Tensor) -> None:
        """Runs `loss.backward()` so that what autograd calls again, as checkpointing does, is watched too."""
        with torch._C.DisableTorchFunction():
            loss = loss.as_subclass(Tensor)
            one = torch.ones_like(loss)
        with self._watching([loss], []), self:
            torch.autograd.graph._engine_run_backward(
                (loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True
            )

    @contextlib.contextmanager
    def inside(self, below: torch.device | None = None) -> Iterator[None]:
        """Shows the device that holds the tensors, or the one given."""
        before, PretendedGpu.shown = PretendedGpu.shown, below or self.below
        try:
            yield
        finally:
            PretendedGpu.shown = before

    @contextlib.contextmanager
    def _watching(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Iterator[None]:
        """Notes the operators that read numbers of the GPU, however deep inside a function."""
        if not ours or self._watched:
            yield
            return
        self._watched = True
        try:
            with _Reads(self, theirs):
                yield
        finally:
            self._watched = False


class _Reads(TorchDispatchMode):
    """Sees each operator inside a call that has a tensor of the GPU among its arguments."""

    def __init__(self, gpu: PretendedGpu, theirs: Sequence[Tensor]) -> None:
        super().__init__()
        self._gpu, self._theirs = gpu, {id(tensor) for tensor in theirs}

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled():  # there torch does not take composite operators apart by itself
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        name = func.overloadpacket.__name__
        read = [args[0]] if name in _READS and args else _masks(args) if name in _INDEXES else []
        if any(id(tensor) not in self._theirs for tensor in read):
            self._gpu.note(name)
            if name == "_local_scalar_dense" and args[0].is_meta:
                return torch.zeros((), dtype=args[0].dtype).item()
        with self._gpu.inside(PretendedGpu.shown):
            return func(*args, **(kwargs or {}))


def _masks(args: Sequence[Any]) -> list[Tensor]:
    """The indices of an operator that are masks; none where all that they mask gets one number."""
    if len(args) > 2 and args[2].numel() == 1:
        return []
    return [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]


def _asked(name: str, args: Any, kwargs: Any, leaves: Sequence[Any]) -> torch.device | None:
    """The device that a call names; None where it names none."""
    if name == "cpu":
        return _CPU
    if name == "cuda":
        return GPU
    if name in ("to", "type_as") and any(isinstance(x, Tensor) for x in args[1:]):
        return GPU if isinstance(args[1], GpuTensor) else _CPU
    if name == "to" and isinstance(kwargs.get("other"), Tensor):
        return GPU if isinstance(kwargs["other"], GpuTensor) else _CPU
    named = [str(leaf) for leaf in leaves if isinstance(leaf, torch.device | str)]
    if any(word.startswith("cuda") for word in named):
        return GPU
    return _CPU if "cpu" in named else None


def _refuse_mixture(name: str, args: Any, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Raises where a GPU would: tensors on two devices, numbers excepted."""
    if not ours or not theirs:
        return
    if name == "__getitem__" and not isinstance(args[0], GpuTensor) and any(tensor.dim() for tensor in ours):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if name not in _MIXES and (name in ("cat", "stack") or any(tensor.dim() for tensor in theirs)):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")


def _refuse_generator(name: str, leaves: Sequence[Any], onto: torch.device | None) -> None:
    if onto == GPU and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{name}: expected a 'cuda' device type for generator but found 'cpu'")


def _is_copy(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a call whose result lies on the CPU copies numbers of the GPU there, and waits for them."""
    position = {"to": 0, "cpu": 0, "type_as": 0, "tensor": 0, "as_tensor": 0, "copy_": 1, "__setitem__": 2}
    if name not in position:
        return False
    return len(args) > position[name] and isinstance(args[position[name]], GpuTensor)


def _moved(kind: type[Tensor]) -> Callable[[Any], Any]:
    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and isinstance(leaf, GpuTensor) != (kind is GpuTensor):
            return leaf.as_subclass(kind)
        if isinstance(leaf, tuple) and hasattr(leaf, "n_fields"):  # of torch.return_types
            return type(leaf)([moved(part) for part in leaf])
        return leaf

    return moved
