"""The U-Net that draws, as one compiled graph for all steps, kinds of drawing and adapters.

The graph is fixed in shape: a smaller batch is filled up with rows of zeros, which are cut off again. It holds no
number of a step or an adapter: the timestep is a tensor, `lora.fuse` adds an adapter to the weights in place, and the
prompts' keys and values, which `attention.DrawingAttention` computes before the graph, are inputs of it. So it is
compiled once for a checkpoint and a size of batch.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor

from bob.core import batching
from bob.diffusion.timesteps import by_name

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

__all__ = ["WORTH", "CompiledUnet"]

WORTH = 2_000
"""Evaluations of the U-Net in a process after which compiling on a GPU is worth its time. Assumed, not measured: one of
SD 1.5 for 50 images with guidance is 80 TFLOP, 0.14 s of an H100 at 60 % of its peak; diffusers' own figures (A100,
float16: 1.15 images/s, compiled 1.50) save 23 % of it; compiling takes a minute. That minute is saved after 1,900
evaluations, so who waits for as many loses at most twice what the best choice costs, however much is still to draw."""

_WORDS = 200
"""Characters of a compiler's message that are told."""


class CompiledUnet:
    """Compiled forward pass of a U-Net, installed for good; other evaluations take the U-Net's own.

    For inference, by one thread at a time.
    """

    def __init__(self, unet: "UNet2DConditionModel", *, backend: str | Callable[..., Any] = "inductor") -> None:
        """Replaces `unet.forward`; compiles nothing yet.

        Args:
            unet: on its final device, in its final dtype and memory format, its attention replaced.
            backend: of `torch.compile`.
        """
        replaced: Any = unet
        self._own, self._backend = replaced.forward, backend
        self._rows = 0  # of the graph
        self._given = 0  # rows of this evaluation if the graph makes it, else 0
        self._left, self._required = WORTH, False
        self._fault: Exception | None = None
        self._news = ""
        self._text: tuple[Tensor | None, Tensor | None] = None, None  # as given, and filled up

        replaced.forward = self._forward
        replaced.register_forward_pre_hook(self._fill_up, with_kwargs=True, prepend=True)  # before keys are computed

    def expect(self, rows: int, *, required: bool) -> None:
        """Says what comes.

        The graph makes evaluations of more than half its rows; another is compiled for more than all. Half and fewer,
        as after memory ran out, are left to the U-Net's own forward pass.

        Args:
            rows: of a full batch: images, twice with guidance; 0 if nothing may be compiled.
            required: compiles at once, and an evaluation raises where that fails. Otherwise after `WORTH` evaluations,
                and where it fails the U-Net's own forward pass goes on and `note` says so.
        """
        self._rows, self._required = max(self._rows, rows) if rows else 0, required

    def clear(self) -> None:
        """Forgets the prompts of a batch."""
        self._text = None, None

    def note(self) -> str:
        """Why nothing is compiled, if that has come out since the last call; empty if not."""
        news, self._news = self._news, ""
        return news

    @functools.cached_property
    def _graph(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Made when it is used: the compiler takes seconds to import."""
        own = self._own

        def drawn(sample: Tensor, time: Tensor, text: Tensor) -> Tensor:
            return own(sample, time, text, return_dict=False)[0]

        return torch.compile(drawn, fullgraph=True, dynamic=False, backend=self._backend)

    def _fill_up(self, _: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before an evaluation: decides who makes it, and fills its rows up for the graph."""
        named = by_name(args, named)
        sample, text = named["sample"], named["encoder_hidden_states"]
        due = self._required or not (self._left or self._fault)
        self._left = max(0, self._left - 1)
        self._given = len(sample) if due and self._rows // 2 < len(sample) <= self._rows else 0
        if self._given:
            if text is not self._text[0]:
                self._text = text, self._filled(text)
            named |= {"sample": self._filled(sample), "encoder_hidden_states": self._text[1]}
        return (), named

    def _filled(self, tensor: Tensor) -> Tensor:
        """A tensor with all rows, in one layout: the graph is for that, and what samplers return has no certain one."""
        if len(tensor) == self._rows:
            return tensor.contiguous()
        return torch.cat([tensor, tensor.new_zeros((self._rows - len(tensor), *tensor.shape[1:]))]).contiguous()

    def _forward(
        self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *, return_dict: bool = True, **others: Any
    ) -> Any:
        """Called by diffusers, whose names these are."""
        if not self._given:
            return self._own(sample, timestep, encoder_hidden_states, return_dict=return_dict, **others)
        assert all(value is None for value in others.values()), "the graph has no such input"
        time = torch.as_tensor(timestep).reshape(1).to(sample.device)
        drawn = self._drawn(sample, time, encoder_hidden_states)[: self._given]
        return UNet2DConditionOutput(sample=drawn) if return_dict else (drawn,)

    def _drawn(self, *inputs: Tensor) -> Tensor:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        if not self._fault:
            try:
                return self._graph(*inputs)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                if batching.is_out_of_memory(error):
                    raise
                self._fault = error
                self._news = f"the U-Net is not compiled ({_briefly(error)})"
        if self._required:
            raise ValueError(
                f"torch cannot compile the U-Net here ({_briefly(self._fault)}): install a C++ compiler, or draw"
                " with --draw.compile off"
            ) from self._fault
        return self._own(*inputs, return_dict=False)[0]


def _briefly(error: Exception) -> str:
    return " ".join(str(error).split())[:_WORDS] or type(error).__name__
