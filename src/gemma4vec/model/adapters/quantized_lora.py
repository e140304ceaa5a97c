"""LoRA layers that read the quantized merged weight; `model.adapters.fake_quantize` computes it.

Shapes: T tokens, I inputs, O outputs, R rank.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model import upstream
from gemma4vec.model.adapters.fused_lora import FusedLoraLinear


class _StraightThrough(torch.autograd.Function):
    """`x Q^T` with Q from `joined` = [Q | B], whose gradient reaches A and B as if Q were W + s B A."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, a_RI: Tensor, b_OR: Tensor, joined: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x_TI, a_RI, joined)
        ctx.scale = scale
        return x_TI @ joined[:, : x_TI.shape[1]].T

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x_TI, a_RI, joined = ctx.saved_tensors
        inputs = a_RI.shape[1]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_both = grad_TO @ joined
            grad_x, grad_h = grad_both[:, :inputs], grad_both[:, inputs:]
        else:
            grad_h = grad_TO @ joined[:, inputs:]
        h_TR = (x_TI @ a_RI.T) * ctx.scale
        return grad_x, (grad_h.T @ x_TI) * ctx.scale, (h_TR.T @ grad_TO).T, None, None


class QuantizedLoraLinear(FusedLoraLinear):
    """peft's LoRA layer, whose forward pass is one product with a quantized weight; adapters and saving stay peft's."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """`[..., I]` to `[..., O]`."""
        (name,) = self.active_adapters
        a_RI, b_OR = self.lora_A[name].weight, self.lora_B[name].weight
        y_TO = _StraightThrough.apply(x.flatten(0, -2), a_RI, b_OR, self.joined, self.scaling[name])
        y = y_TO.unflatten(0, x.shape[:-1])
        return y if self.base_layer.bias is None else y + self.base_layer.bias


def quantize_lora(layer: Any) -> tuple[str, float]:
    """Let a LoRA layer, fused or not, read `joined`: its quantized merged weight and B as one matrix `[O, I + R]`.

    Returns:
        The adapter's name, and the factor s of W + s B A.

    Raises:
        InputError: the layer's merged weight is not W + s B A.
    """
    (name,) = layer.active_adapters
    dropped = layer.lora_dropout[name]
    if layer.lora_variant or not isinstance(dropped, nn.Identity) or layer.base_layer.weight.requires_grad:
        raise InputError("model.lora: fake quantization needs adapters without DoRA and without dropout")
    weight, b_OR = layer.base_layer.weight, layer.lora_B[name].weight
    source = weight.detach().contiguous()  # a fused layer has it inside its own joined matrix
    joined = torch.cat([source.to(b_OR.dtype), b_OR.detach()], dim=1)
    weight.data, b_OR.data = source, joined[:, weight.shape[1] :]
    layer.register_buffer("joined", joined, persistent=False)
    if not isinstance(layer, QuantizedLoraLinear):
        upstream.change_class(layer, QuantizedLoraLinear)
    return name, float(layer.scaling[name])
