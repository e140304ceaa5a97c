"""GradCache: any number of rows in one softmax, with the activations of one micro-batch in memory.

Gao et al. 2021 (arXiv:2101.06983): encode every micro-batch without a graph, compute the loss and its gradient at the
vectors, then encode each micro-batch again with a graph and pass that gradient through it. Here the second and third
step are the backward pass of one autograd function, so a loss on the vectors that calls `backward()` needs no change.

The random state of each micro-batch is stored, so the second forward has the same dropout. The first pass draws in the
order of the plain path, so both have the same loss and the same gradients.

Shapes: N documents, D dimensions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.packing.packed_batch import PackedBatch


def encode_cached(encoder: TextEncoder, layouts: Sequence[PackedBatch]) -> Tensor:
    """The same as `encoder(layouts)`, `[N, D]`, with the activations of one layout at a time in memory.

    Gradients reach the parameters' `.grad` through `backward()`; `torch.autograd.grad` does not see them.
    """
    anchor = torch.zeros((), requires_grad=True)  # without it autograd would skip our backward
    vectors_ND = torch.cat([_Encoded.apply(anchor, encoder, layout) for layout in layouts])
    numbers = torch.tensor([number for layout in layouts for number in sorted(layout.documents)])
    return vectors_ND.index_select(0, to_device(numbers.argsort(), vectors_ND.device))


class _Encoded(torch.autograd.Function):
    """The vectors of one layout, in the order of its documents' numbers."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, encoder: TextEncoder, layout: PackedBatch) -> Tensor:
        ctx.encoder, ctx.layout, ctx.random = encoder, layout, random_state(encoder)
        # Compiled layers have one graph with gradients and one without; compiling the second would take as long again.
        with torch.set_grad_enabled(encoder.backbone.compiled):
            return encoder([layout]).detach()

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> Any:  # type: ignore[override]  # torch types it for any number
        with torch.enable_grad(), replay_random_state(ctx.random, ctx.encoder):
            vectors_ND = ctx.encoder([ctx.layout])
        torch.autograd.backward(vectors_ND, gradient_ND)
        return None, None, None


def random_state(encoder: TextEncoder) -> tuple[Tensor, Tensor | None]:
    """The generators of the CPU and of the encoder's GPU."""
    device = encoder.backbone.device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def replay_random_state(random: tuple[Tensor, Tensor | None], encoder: TextEncoder) -> Iterator[None]:
    """While this is open, draw from an earlier random state; afterwards continue as if nothing had been drawn."""
    now = random_state(encoder)
    _set(random, encoder)
    try:
        yield
    finally:
        _set(now, encoder)


def _set(random: tuple[Tensor, Tensor | None], encoder: TextEncoder) -> None:
    torch.set_rng_state(random[0])
    if random[1] is not None:
        torch.cuda.set_rng_state(random[1], encoder.backbone.device)
