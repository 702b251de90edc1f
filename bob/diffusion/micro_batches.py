"""Gradient of a batch's mean loss, added up over micro-batches that fit into memory.

An optimiser step takes the paper's whole batch (Table 4: 80) on any GPU: gradients of micro-batches are added in
float32, each weighted by its share of the batch, so the size of a micro-batch changes nothing but the order of sums.
"""

from collections.abc import Callable, Mapping

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from bob.core import batching, memory
from bob.core.memory import MicroBatch
from bob.core.settings import FinetuneSettings
from bob.core.types import Tuning
from bob.diffusion import checkpoints, parallel
from bob.diffusion.batches import Batch

__all__ = ["MicroBatches"]

_REMEDY = "take a GPU with more memory, --finetune.precision bfloat16, or a smaller checkpoint"

_known: dict[tuple[object, ...], MicroBatch] = {}
"""Model, device and recipe -> the micro-batch that an earlier fine-tune of this process ended with."""


class MicroBatches:
    """Micro-batch of one fine-tune: the one asked for or chosen by the memory model, halved when memory runs out."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        trained: Mapping[str, nn.Parameter],
        tuning: Tuning,
        settings: FinetuneSettings,
        tell: Callable[[str], None],
    ) -> None:
        """Chooses a micro-batch and tells of it if it is smaller than this process's part of the batch.

        Args:
            pipeline: prepared for training.
            trained: its trainable parameters.
            tuning: what is trained.
            settings: `batch`, `micro_batch`, `rank` and `precision` matter.
            tell: called with a line to show: at the start, and when memory runs out.

        Raises:
            ValueError: if one image does not fit into the GPU's free memory, by the memory model.
        """
        self._pipeline, self._trained, self._settings, self._tell = pipeline, trained, settings, tell
        self._footprint = memory.finetune(checkpoints.recognise(pipeline.unet.config), tuning, settings)
        weights = sum(parameter.numel() for parameter in pipeline.unet.parameters())
        recipe = (settings.batch, settings.micro_batch, settings.precision, tuning.side)
        self._rows = max(1, len(range(settings.batch)[parallel.part(settings.batch)]))
        self._key = (str(pipeline.device), weights, tuple(trained), self._rows, *recipe)
        self._micro = _known.get(self._key) or self._chosen()
        self._note = ""
        self._apply()
        if self._is_split():
            self._say(f"micro-batches of {self._described()}")

    def gradients(self, batch: Batch, loss: Callable[[Batch], Tensor]) -> Tensor:
        """Sets each parameter's gradient to that of the mean loss over the whole batch; returns that loss, detached.

        Of a batch that processes share, gradient and loss are this process's summands.

        Args:
            batch: this process's rows; may be empty.
            loss: (rows) -> their mean loss.

        Raises:
            ValueError: if memory does not hold a single image; with the numbers.
        """
        while (total := self._attempt(batch, loss)) is None:
            batching.release()
        return total

    def encoded_at_once(self) -> int:
        """Images that the VAE encodes in less memory than the U-Net's pass over a micro-batch takes; at most 8.

        An image takes the VAE 0.67 GB at 512 px, and the U-Net 1.2 to 1.7, or 0.24 to 0.47 with gradient checkpointing.
        """
        images = self._micro.images
        return max(1, min(8, images // 3 if self._micro.checkpointing else images))

    def note(self) -> str:
        """For the receipt: the micro-batch, in words; empty if it is the whole batch."""
        return self._note

    def close(self) -> None:
        """Ends gradient checkpointing."""
        self._micro = MicroBatch(images=self._micro.images, checkpointing=False)
        self._apply()

    def _attempt(self, batch: Batch, loss: Callable[[Batch], Tensor]) -> Tensor | None:
        """None when memory ran out: the gradients are then incomplete, and all of the batch is done again."""
        for parameter in self._trained.values():
            parameter.grad = None
        images, total = min(self._micro.images, max(1, len(batch))), torch.zeros((), device=self._pipeline.device)
        try:
            for start in range(0, len(batch), images):
                part = batch[start : start + images]
                summand = loss(part) * (len(part) / batch.size)
                summand.backward()
                total += summand.detach()
            return total
        except (MemoryError, RuntimeError) as error:
            if not batching.is_out_of_memory(error):
                raise
            self._shrink(images, error)
        return None

    def _shrink(self, images: int, error: BaseException) -> None:
        """Halves the micro-batch of `images`; a single image is checkpointed; raises if it is already."""
        if images > 1:
            self._micro = MicroBatch(images=images // 2, checkpointing=self._micro.checkpointing)
        elif not self._micro.checkpointing:
            self._micro = MicroBatch(images=1, checkpointing=True)
        else:
            raise ValueError(self._too_large(error)) from error
        self._apply()
        self._say(f"out of memory, so micro-batches of {self._described()} from here on")

    def _chosen(self) -> MicroBatch:
        """By the free memory on a GPU, if the model is known; else the size asked for, or the whole batch."""
        most = min(self._settings.micro_batch or self._rows, self._rows)
        device = self._pipeline.device
        if self._footprint is None or device.type != "cuda":
            return MicroBatch(images=most, checkpointing=False)
        free = batching.free_memory(device)  # with the weights' bytes, which the footprint includes
        try:
            return memory.micro_batch(self._footprint, free=free, batch=most, precision=self._settings.precision)
        except ValueError as error:
            raise ValueError(f"the fine-tune does not fit on this GPU: {error}: {_REMEDY}") from error

    def _apply(self) -> None:
        """Turns gradient checkpointing on or off."""
        unet, text_encoder = self._pipeline.unet, self._pipeline.text_encoder
        if self._micro.checkpointing:
            unet.enable_gradient_checkpointing()
            text_encoder.activation_checkpointing_enable()
        else:
            unet.disable_gradient_checkpointing()
            text_encoder.activation_checkpointing_disable()

    def _say(self, words: str) -> None:
        _known[self._key] = self._micro
        self._note = words
        self._tell(words)

    def _is_split(self) -> bool:
        return self._micro.images < self._rows or self._micro.checkpointing

    def _described(self) -> str:
        words = f"{self._micro.images} of {self._rows} images"
        return f"{words}, with gradient checkpointing" if self._micro.checkpointing else words

    def _too_large(self, error: BaseException) -> str:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        needs = ""
        if self._footprint is not None:
            needs = f", of about {self._footprint.bytes(1, checkpointing=True) / 1e9:.1f} GB in all"
        return (
            f"the fine-tune runs out of memory even at 1 image with gradient checkpointing{needs} ({first}): {_REMEDY}"
        )
