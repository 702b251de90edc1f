"""A linear layer with a LoRA as one product: x (W + B A)' + b, with the gradients of A and B alone.

Peft adds the branch B (A x) to the layer's output, which writes and reads the output three times more. Here the two
low-rank factors are added to a copy of the weights, d_out x d_in x rank multiplications a pass, and the backward pass
adds them again in place of keeping the sum. The gradients of the factors are computed from x A' and B' g, as those of
the branch are: with the gradient of the sum itself they would take d_out x d_in multiplications a token.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from bob.core import precision

__all__ = ["LowRankLinear"]


class LowRankLinear(Linear):
    """Peft's layer, with its parameters under its names, for one adapter with alpha = rank and no dropout."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., d_in) -> (..., d_out), in autocast's precision where that is on, as a linear layer computes."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        base, down, up = self.get_base_layer(), self.lora_A[name].weight, self.lora_B[name].weight
        half = precision.autocast_dtype(x.device.type)
        if half is None:
            return _Product.apply(x, base.weight, base.bias, down, up)  # pyright: ignore[reportReturnType]
        with torch.autocast(x.device.type, enabled=False):  # the sum of the weights is one of float32
            return _Product.apply(x.to(half), base.weight, base.bias, down, up)  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    """x, W (d_out, d_in), b (d_out) or None, A (rank, d_in), B (d_out, rank) -> x (W + B A)' + b in x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        merged = torch.addmm(weight, up, down).to(x.dtype)
        return nn.functional.linear(x, merged, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
        x, weight, down, up = ctx.saved_tensors
        rows, grad = x.flatten(0, -2), grads[0].flatten(0, -2)
        into_x = None
        if ctx.needs_input_grad[0]:
            into_x = torch.mm(grad, torch.addmm(weight, up, down).to(grad.dtype)).view(x.shape)
        into_down = torch.mm(torch.mm(grad, up.to(grad.dtype)).t(), rows)
        into_up = torch.mm(grad.t(), torch.mm(rows, down.to(rows.dtype).t()))
        return into_x, None, None, into_down, into_up
