"""Trained weights in safetensors files that know their checksum: a damaged one is neither trained on nor scored."""

import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

CHECKSUM = "crc32"


def write_weights(file: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write tensors by name, with the checksum of their bytes in the file's metadata.

    Raises:
        SafetensorError: the disk is full.
    """
    save_file(weights, file, metadata={CHECKSUM: _checksum(weights)})


def pack_weights(weights: dict[str, torch.Tensor]) -> bytes:
    """The bytes of the file that `write_weights` writes."""
    packed: bytes = save(weights, metadata={CHECKSUM: _checksum(weights)})
    return packed


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name. Files of earlier releases have no checksum.

    Raises:
        OSError: the file cannot be read.
        SafetensorError: it is cut, or its header is damaged.
        ValueError: its values differ from those that were written.
    """
    with safe_open(file, framework="pt") as tensors:
        weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  # not a mapping
        known = (tensors.metadata() or {}).get(CHECKSUM)
    if known is not None and known != _checksum(weights):
        raise ValueError(f"{file.name} differs from what was written")
    return weights


def _checksum(weights: dict[str, torch.Tensor]) -> str:
    """CRC-32 of names and values: it finds damage, at a tenth of a cryptographic hash's time."""
    value = 0
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous().reshape(-1)
        value = zlib.crc32(tensor.view(torch.uint8).numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"
