"""GradCache: any number of rows in one softmax, in the activation memory of one micro-batch.

Gao et al. 2021 (arXiv:2101.06983): encode every micro-batch without keeping its graph, compute the loss and its
gradient at the vectors, then encode each micro-batch again with a graph and send that gradient through it. Here the
second and third step are the backward pass of one autograd function, so that whoever computes a loss of the vectors and
calls `backward()` need not know.

Random state is kept for each micro-batch: what is computed again has the same dropout. The first pass draws in
the order in which the plain path draws, so both have the same loss and the same gradients.

Shapes: N documents, D dimensions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gemma4vec.machine.transfer import to_device
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.packing.packed_batch import PackedBatch


def encode_cached(encoder: TextEncoder, layouts: Sequence[PackedBatch]) -> Tensor:
    """As `encoder(layouts)`, `[N, D]`, with the activations of one layout at a time in memory.

    Gradients reach the parameters' `.grad` through `backward()`; `torch.autograd.grad` by parameters does not see them.
    """
    anchor = torch.zeros((), requires_grad=True)  # what makes autograd call the backward of a function of no tensor
    vectors_ND = torch.cat([_Encoded.apply(anchor, encoder, layout) for layout in layouts])
    numbers = torch.tensor([number for layout in layouts for number in sorted(layout.documents)])
    return vectors_ND.index_select(0, to_device(numbers.argsort(), vectors_ND.device))


class _Encoded(torch.autograd.Function):
    """The vectors of one layout, in the order of its documents' numbers."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, encoder: TextEncoder, layout: PackedBatch) -> Tensor:
        ctx.encoder, ctx.layout, ctx.random = encoder, layout, _random_state(encoder)
        # Compiled layers have one code with gradients and one without; compiling the second would take as long again.
        with torch.set_grad_enabled(encoder.backbone.compiled):
            return encoder([layout]).detach()

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> Any:  # type: ignore[override]  # torch types it for any number
        with torch.enable_grad(), _as_it_was(ctx.random, ctx.encoder):
            vectors_ND = ctx.encoder([ctx.layout])
        torch.autograd.backward(vectors_ND, gradient_ND)
        return None, None, None


def kept_bytes(
    encoder: TextEncoder, layout: PackedBatch, forward: Callable[[PackedBatch], Tensor] | None = None
) -> int:
    """Bytes that encoding a layout keeps for its backward pass, parameters left out. Random state stays as it was.

    A task that does not read vectors gives its own `forward`.
    """
    seen = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}
    alive: list[Tensor] = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in seen:
            seen.add(address)
            alive.append(tensor.detach())
        return tensor.detach()  # itself, an output that is kept would hold the graph that holds it, for ever

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    with _as_it_was(_random_state(encoder), encoder), encoder.backbone.counted(), hooks:
        encoder([layout]) if forward is None else forward(layout)
    return sum(tensor.untyped_storage().nbytes() for tensor in alive)


def _random_state(encoder: TextEncoder) -> tuple[Tensor, Tensor | None]:
    device = encoder.backbone.device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _as_it_was(random: tuple[Tensor, Tensor | None], encoder: TextEncoder) -> Iterator[None]:
    """Draw as from an earlier random state while this is open, and go on as if nothing had been drawn."""
    now = _random_state(encoder)
    _set(random, encoder)
    try:
        yield
    finally:
        _set(now, encoder)


def _set(random: tuple[Tensor, Tensor | None], encoder: TextEncoder) -> None:
    torch.set_rng_state(random[0])
    if random[1] is not None:
        torch.cuda.set_rng_state(random[1], encoder.backbone.device)
