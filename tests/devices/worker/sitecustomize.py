"""Gives each of Ray's worker processes a pretended GPU. Python imports this file where its folder is on the path.

A process that never imports torch is left alone. Each unit that a worker does adds a line to a file of its process in
the folder that $PRETENDED_GPU_LOG names: the step, what the process sees, and how much was computed on the GPU.
"""

import contextlib
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOLDER = os.environ.get("PRETENDED_GPU_LOG", "")


def _after_torch(torch: Any) -> None:
    """Answers as if there were a GPU; processes talk by gloo, since there is none for NCCL."""
    from _pytest.monkeypatch import MonkeyPatch

    from tests.devices import installed, pretended_gpu

    installed.answer(MonkeyPatch(), pretended_gpu.PretendedGpu())
    begin = torch.distributed.init_process_group

    def by_gloo(backend: str | None = None, **named: Any) -> None:
        begin(backend="gloo", **named)

    torch.distributed.init_process_group = by_gloo


def _after_session(session: Any) -> None:
    """Does each unit on a pretended GPU; torch's modes belong to a thread, so that each needs its own."""
    attempt = session.attempt

    @functools.wraps(attempt)
    def on_gpu(worker: Any, unit: Any, **options: Any) -> dict[str, Any]:
        import ray
        import torch  # noqa: F401

        from tests.devices.pretended_gpu import PretendedGpu

        with PretendedGpu() as gpu:
            answer = attempt(worker, unit, **options)
        line = {
            "step": unit.step,
            "calls": gpu.calls,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "assigned": [str(k) for k in ray.get_gpu_ids()],
        }
        with Path(_FOLDER, f"{os.getpid()}.jsonl").open("a") as file:
            print(json.dumps(line), file=file)
        return answer

    session.attempt = on_gpu


_AFTER: dict[str, Callable[[Any], None]] = {"torch": _after_torch, "bob.cluster.session": _after_session}


class _Finder:
    """Calls a function after the import of a module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        after = _AFTER.pop(name, None)
        spec = importlib.util.find_spec(name) if after else None
        if after is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def executed(module: Any) -> None:
            execute(module)
            after(module)

        with contextlib.suppress(AttributeError):
            spec.loader.exec_module = executed
        return spec


if _FOLDER and any(Path(word).name == "default_worker.py" for word in sys.orig_argv):
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
