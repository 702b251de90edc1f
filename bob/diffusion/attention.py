"""Attention of a U-Net that draws: keys and values of the prompts are computed once a batch, not at each step.

A sampler evaluates the U-Net 50 times and more under the same prompts. What `to_k` and `to_v` of each cross-attention
make of them depends on nothing else, so they are kept until other prompts come: the same operations on the same
tensors, hence the same bits.
"""

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

from bob.diffusion.timesteps import by_name

__all__ = ["DrawingAttention"]


class DrawingAttention:
    """Processors of a U-Net's attention, installed for good, and the keys and values that they share.

    For inference: a gradient of kept keys would be that of the step that made them.
    """

    def __init__(self, unet: "UNet2DConditionModel", *, fused: bool = False) -> None:
        """Replaces stock processors; an attention of another kind than Stable Diffusion's keeps its own.

        Args:
            unet: on its final device and in its final dtype.
            fused: whether queries, keys and values of self-attention come of one product in place of three; equal up to
                the order of sums.
        """
        self._text: Tensor | None = None
        self._cross: list[tuple[Any, _CrossAttention]] = []
        plain: list[Any] = [layer for layer in unet.modules() if isinstance(layer, Attention) and _is_plain(layer)]
        for layer in plain:
            if layer.is_cross_attention:
                self._cross.append((layer, _CrossAttention()))
                layer.set_processor(self._cross[-1][1])
            elif fused:
                layer.set_processor(_SelfAttention(layer))
        unet.register_forward_pre_hook(self._prepare, with_kwargs=True)

    def clear(self) -> None:
        """Forgets the prompts of a batch: weights may change before the next, and its memory is free."""
        self._text = None
        for _, processor in self._cross:
            processor.keys = processor.values = None

    def _prepare(self, _: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Before an evaluation: computes keys and values unless its prompts are those of the last one."""
        text: Tensor = by_name(args, named)["encoder_hidden_states"]
        if text is self._text:  # which is kept, so that no other tensor can take its place in memory
            return
        for layer, processor in self._cross:
            processor.keys, processor.values = (_heads(layer, project(text)) for project in (layer.to_k, layer.to_v))
        self._text = text


class _CrossAttention:
    """Attention to the prompts, whose keys and values, (b, heads, tokens, width), are there already."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """States (b, n, width) -> the same shape; called by diffusers, whose names these are."""
        assert attention_mask is None
        assert self.keys is not None, "the U-Net is called as a module, whose hook computes the keys"
        assert self.values is not None
        return _attended(attn, _heads(attn, attn.to_q(hidden_states)), self.keys, self.values)


class _SelfAttention:
    """Self-attention whose three projections are one product.

    The layer's own weights become views of the joint matrix, so that an adapter that is added to them, or a clean
    state that is copied into them, is in it too.
    """

    def __init__(self, layer: Attention) -> None:
        parts: list[Any] = [layer.to_q, layer.to_k, layer.to_v]
        self.weight = torch.cat([part.weight.detach() for part in parts])
        for part, view in zip(parts, self.weight.chunk(3), strict=True):
            part.weight = nn.Parameter(view, requires_grad=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """States (b, n, width) -> the same shape; called by diffusers, whose names these are."""
        assert attention_mask is None
        assert encoder_hidden_states is None
        joint = functional.linear(hidden_states, self.weight).chunk(3, dim=-1)
        query, key, value = (_heads(attn, part) for part in joint)
        return _attended(attn, query, key, value)


def _is_plain(layer: Attention) -> bool:
    """Whether a layer computes what `_attended` computes, as all of SD 1.5, SD 2.1 and skyworld do."""
    others = layer.group_norm, layer.spatial_norm, layer.norm_q, layer.norm_k, layer.norm_cross, layer.to_q.bias
    return (
        type(layer.processor) is AttnProcessor2_0
        and all(other is None for other in others)
        and not layer.residual_connection
        and layer.rescale_output_factor == 1
    )


def _heads(layer: Attention, projected: Tensor) -> Tensor:
    """(b, n, width) -> (b, heads, n, width / heads)."""
    return projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)


def _attended(layer: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention and the output projection: (b, n, width)."""
    states = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    projections: Any = layer.to_out
    for part in projections:
        states = part(states)
    return states
