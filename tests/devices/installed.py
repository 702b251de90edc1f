"""Installs a pretended GPU: torch's own questions about GPUs are answered as if there were one."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.devices.numberless_gpu import NumberlessGpu
from tests.devices.pretended_gpu import GPU, GpuTensor, PretendedGpu

__all__ = ["answer", "install"]


def _grouped(group: Callable[..., Any]) -> Callable[..., Any]:
    """Torch's grouping of an optimiser's tensors by device, which asks no tensor for its `device`."""

    def grouped(lists: Sequence[Sequence[Tensor | None]], with_indices: bool) -> Any:
        ours = any(isinstance(tensor, GpuTensor) for tensor in lists[0])
        groups = group(lists, with_indices)
        return {(GPU if ours else device, dtype): held for (device, dtype), held in groups.items()}

    return grouped


class _Event:
    """An event of a stream that has always ended."""

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


def answer(patch: pytest.MonkeyPatch, gpu: PretendedGpu) -> None:
    """Makes torch's own questions about GPUs answer as if there were one, for good."""
    autocast = torch.autocast
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "empty_cache": None,
        "_lazy_init": None,
        "manual_seed_all": None,
        "set_rng_state": None,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "mem_get_info": (60 << 30, 80 << 30),
        "memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_capability": (9, 0),
        "get_device_properties": types.SimpleNamespace(
            name="NVIDIA H100 80GB HBM3", total_memory=80 << 30, major=9, minor=0, multi_processor_count=132
        ),
    }
    for name, value in answers.items():
        patch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    patch.setattr(torch.cuda, "device", contextlib.nullcontext)
    patch.setattr(torch.cuda, "Event", _Event)
    patch.setattr(torch.cuda, "synchronize", lambda *_: gpu.note("synchronize"))
    patch.setattr(
        torch, "autocast", lambda kind, dtype=None, enabled=True, **_: autocast("cpu", dtype, enabled=enabled)
    )
    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", _grouped(torch._C._group_tensors_by_device_and_dtype))
    patch.setattr(
        sys.modules["torch.optim.optimizer"], "_foreach_supported_types", [Tensor, torch.nn.Parameter, GpuTensor]
    )
    # A function of ours saves what says that it lies on the GPU, but in a second pass while its device is shown.
    checks = sys.modules["torch.utils.checkpoint"]._allowed_determinism_checks_to_fns
    patch.setitem(checks, "default", lambda tensor: (tuple(tensor.shape), tensor.dtype))
    patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
    patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    patch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # its threads are outside of the context


@contextlib.contextmanager
def install(patch: pytest.MonkeyPatch, *, numbers: bool = True) -> Iterator[PretendedGpu]:
    """Makes `cuda` a pretended GPU inside the block and until the patch is undone; gives the active one."""
    gpu = PretendedGpu() if numbers else NumberlessGpu()
    answer(patch, gpu)
    with gpu:
        yield gpu
