"""Pictures of one `Data` on the device of its trainings: batches of them, and the views of an evaluation.

On a GPU with room all pictures lie there, copied once a process and gathered by row; else each batch is gathered into
pinned memory, out of which the GPU copies while the CPU goes on.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bob.backbones import Backbone
from bob.classifier.data import Data
from bob.core import batching, memory
from bob.core.transfer import pinned, send

__all__ = ["Pictures", "Views", "pictures"]

_VIEWS = 512 << 20
"""Bytes that the views of an evaluation may take on a CPU."""
_CHUNK = 256  # pictures


class Pictures:
    """The real and the synthetic pictures of one `Data`, with their label distributions."""

    def __init__(self, data: Data, device: torch.device) -> None:
        self._device = device
        self._arrays = [array for array in (data.real, data.synthetic) if len(array)]
        real = nn.functional.one_hot(torch.from_numpy(data.real_labels).long(), len(data.class_names)).float()
        synthetic = torch.from_numpy(np.array(data.synthetic_labels, np.float32))
        self._targets = send(torch.cat([real, synthetic]), device)
        self._first_synthetic = len(data.real)
        self._resident: Tensor | None = None
        if device.type != "cpu" and _room(device, sum(array.nbytes for array in self._arrays)):
            self._resident = _sent(self._arrays, device)

    def batch(self, real: np.ndarray, synthetic: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures and label distributions of some rows, the real ones first, on the device.

        Args:
            real: rows of the real pictures.
            synthetic: rows of the synthetic ones.

        Returns:
            float32 (b, 3, kept, kept) in [0, 1], and float32 (b, classes).
        """
        rows = torch.from_numpy(np.concatenate([real, synthetic + self._first_synthetic]))
        rows = send(rows, self._device)
        if self._resident is not None:
            pixels = self._resident[rows]
        else:
            pixels = send(self._gathered([real, synthetic]), self._device)
        return _floats(pixels), self._targets[rows]

    def _gathered(self, rows: Sequence[np.ndarray]) -> Tensor:
        made = pinned((sum(map(len, rows)), *self._arrays[0].shape[1:]), torch.uint8, self._device)
        parts = made.numpy()
        for array, mine in zip(self._arrays, rows, strict=False):  # without synthetic pictures there are no rows
            np.take(array, mine, axis=0, out=parts[: len(mine)], mode="clip")  # other modes take a copy first
            parts = parts[len(mine) :]
        return made


@functools.lru_cache(maxsize=1)
def pictures(data: Data, device: torch.device) -> Pictures:
    """The pictures of a `Data` on a device: those of the last one are kept for further trainings of the process."""
    return Pictures(data, device)


class Views:
    """What a network is shown of pictures in an evaluation; made once and kept where memory allows."""

    def __init__(self, backbone: Backbone, normalised: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Empty.

        Args:
            backbone: whose `view` it is.
            normalised: float (b, 3, size, size) in [0, 1] -> the network's input.
            device: that of the network.
        """
        self._backbone, self._normalised, self._device = backbone, normalised, device
        self._kept: dict[int, tuple[np.ndarray, Tensor]] = {}

    def of(self, pixels: np.ndarray) -> Callable[[slice], Tensor]:
        """Gives the network's input for a slice of uint8 (n, kept, kept, 3)."""
        if id(pixels) in self._kept:
            return self._kept[id(pixels)][1].__getitem__
        side = self._backbone.size
        if not _room(self._device, 12 * len(pixels) * side**2):
            return lambda rows: self._made(pixels[rows])
        made = [self._made(pixels[start : start + _CHUNK]) for start in range(0, len(pixels), _CHUNK)]
        views = torch.cat(made) if len(made) > 1 else made[0]
        self._kept = dict(list(self._kept.items())[-1:]) | {id(pixels): (pixels, views)}  # of validation and of test
        return views.__getitem__

    def _made(self, pixels: np.ndarray) -> Tensor:
        return self._normalised(self._backbone.view(_floats(_sent([pixels], self._device))))


def _floats(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def _sent(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Pictures of some arrays, one after another, on the device; by way of pinned memory of a chunk's size."""
    count = sum(map(len, arrays))
    made, stop = torch.empty((count, *arrays[0].shape[1:]), dtype=torch.uint8, device=device), 0
    for array in arrays:
        for start in range(0, len(array), _CHUNK):
            chunk = send(torch.from_numpy(np.array(array[start : start + _CHUNK])), device)
            begin, stop = stop, stop + len(chunk)
            made[begin:stop] = chunk
    return made


def _room(device: torch.device, wanted: int) -> bool:
    """Whether so many bytes may be taken on a device; the meta device has room for all."""
    if device.type == "cuda":
        return wanted <= memory.PICTURES * batching.free_memory(device)
    return device.type != "cpu" or wanted <= _VIEWS
