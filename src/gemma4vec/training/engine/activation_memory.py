"""Bytes of activations: what autograd keeps for the backward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gemma4vec.model.backbone.backbone import Backbone


@contextmanager
def count_kept_bytes(
    backbone: Backbone, parameters: Iterable[Tensor], count: Callable[[int, int], None]
) -> Iterator[None]:
    """While this is open, call `count(address, bytes)` once for each storage that autograd keeps.

    Args:
        backbone: the layers that run.
        parameters: tensors that exist anyway, and are left out.
        count: receives the address of a storage and its size.
    """
    seen = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    alive: list[Tensor] = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address and address not in seen:
            seen.add(address)
            alive.append(tensor.detach())
            count(address, tensor.untyped_storage().nbytes())
        return tensor.detach()  # an output that is kept itself would hold the graph that holds it, forever

    with backbone.expose_saved_tensors(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield
