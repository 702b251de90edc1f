"""VAE posteriors of a fine-tune's cropped images: each crop is encoded once, as far as memory keeps what was encoded.

A picture that is not square is shown at another offset each time: of 172 offsets (683 x 512 px), 400 epochs show 155
on average, so that 2.6 times fewer crops are encoded than shown. A posterior takes 0.13 MB at 512 px. It is a function
of the crop alone: what is kept, and where, changes no result.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bob.core import batching, memory
from bob.core.transfer import pinned, send

__all__ = ["Crop", "Posteriors"]

_SHARE = 1 / 16
"""Part of the host's free memory that one fine-tune takes at most: with eight GPUs, half of it."""


class Crop(NamedTuple):
    """A square crop of a picture."""

    picture: int
    """Its number."""
    top: int
    """In pixels."""
    left: int
    """In pixels."""
    mirrored: bool
    """Left to right."""


class Posteriors:
    """Mean and standard deviation of crops' latents; the first ones stay on the device, more on the host."""

    def __init__(
        self, vae: Any, pictures: Sequence[np.ndarray], side: int, *, flip: bool = False, at_once: int = 8
    ) -> None:
        """Nothing is encoded yet.

        Args:
            vae: a frozen AutoencoderKL.
            pictures: uint8 (h, w, 3), none smaller than `side`.
            side: of the crops, in pixels.
            flip: whether crops may be mirrored.
            at_once: most crops that a GPU encodes at once. A CPU encodes them one by one, as its sums depend on the
                number, and results may not depend on which crops are kept.
        """
        self._vae, self._pictures, self._side = vae, pictures, side
        self._device = vae.device
        self._at_once = 1 if self._device.type == "cpu" else at_once
        self._batcher = batching.AdaptiveBatcher("encoding")
        edge = side // 2 ** (len(vae.config.block_out_channels) - 1)
        self.shape = (vae.config.latent_channels, edge, edge)
        """Of a latent."""
        offsets = [(height - side + 1) * (width - side + 1) for height, width, _ in (p.shape for p in pictures)]
        self._near, self._far = self._reserved((1 + flip) * sum(offsets))
        self._places: dict[Crop, int] = {}
        """Kept crop -> row of `_near`, and after its last row those of `_far`."""
        self._leaving: list[tuple[slice, Tensor, Any]] = []
        """Copies to the host on their way: rows of `_far`, pinned memory, the event of the copy's end."""

    def __call__(self, crops: Sequence[Crop]) -> Tensor:
        """(b, 2, channels, h, w) on the VAE's device: mean and standard deviation of each crop."""
        self._arrive()
        shown = list(dict.fromkeys(crops))
        fresh = [crop for crop in shown if crop not in self._places]
        rows = dict(zip(fresh, self._encode(fresh), strict=True))
        distant = [crop for crop in shown if self._places.get(crop, -1) >= len(self._near)]
        if distant:
            places = torch.tensor([self._places[crop] for crop in distant])
            rows |= zip(distant, send(self._far[places - len(self._near)], self._device).unbind(), strict=True)
        result = torch.stack([rows[crop] if crop in rows else self._near[self._places[crop]] for crop in crops])
        self._keep(fresh, rows)
        return result

    @torch.no_grad()
    def _encode(self, crops: Sequence[Crop]) -> list[Tensor]:
        """Posteriors (2, channels, h, w) of crops that are not kept."""

        def encode(some: Sequence[Crop]) -> list[Tensor]:
            pixels = torch.from_numpy(np.stack([self._pixels(crop) for crop in some]))
            images = send(pixels, self._device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
            posterior = self._vae.encode(images).latent_dist
            return list(torch.stack([posterior.mean, posterior.std], 1))

        return [row for rows in self._batcher.map(crops, encode, size=self._at_once) for row in rows]

    def _pixels(self, crop: Crop) -> np.ndarray:
        """uint8 (side, side, 3)."""
        rows, columns = (slice(start, start + self._side) for start in (crop.top, crop.left))
        pixels = self._pictures[crop.picture][rows, columns]
        return pixels[:, ::-1] if crop.mirrored else pixels

    def _keep(self, crops: Sequence[Crop], rows: Mapping[Crop, Tensor]) -> None:
        """Keeps what there is room for; what is kept stays, since each crop of a picture is as likely as another."""
        first, near = len(self._places), len(self._near)
        here = crops[: max(0, near - first)]
        away = crops[len(here) : max(0, near + len(self._far) - first)]
        self._places |= {crop: first + k for k, crop in enumerate([*here, *away])}
        if here:
            torch.stack([rows[crop] for crop in here], out=self._near[first : first + len(here)])
        if away:
            held = pinned((len(away), *self._far.shape[1:]), self._far.dtype, self._device)
            held.copy_(torch.stack([rows[crop] for crop in away]), non_blocking=True)
            end = torch.cuda.Event()
            end.record()
            start = self._places[away[0]] - near
            self._leaving.append((slice(start, start + len(away)), held, end))

    def _arrive(self) -> None:
        """Stores what the last call sent to the host: the step after it has ended the copy long ago."""
        for rows, held, end in self._leaving:
            end.synchronize()
            self._far[rows] = held
        self._leaving.clear()

    def _reserved(self, possible: int) -> tuple[Tensor, Tensor]:
        """Uninitialised room for posteriors on the device and, beside a GPU, on the host.

        The kernel gives the host's memory out when it is first written.
        """
        shape = (2, *self.shape)
        room, least = int(_SHARE * (memory.host() or 0) / (4 * math.prod(shape))), memory.KEPT_POSTERIORS
        if self._device.type != "cuda":
            kept = torch.empty((min(possible, max(room, least)), *shape), device=self._device)
            return kept, torch.empty((0, *shape))
        near = min(possible, least)
        return torch.empty((near, *shape), device=self._device), torch.empty((min(possible - near, room), *shape))
