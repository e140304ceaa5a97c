"""Tensors on their way to a GPU, so that nobody waits for them."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on another device; a GPU fetches it from pinned memory, which alone need not be waited for."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
