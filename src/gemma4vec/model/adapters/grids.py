"""Quantization grids as pure functions: a matrix to codes and scales, and back.

| grid | codes | one scale for | scale | source |
|---|---|---|---|---|
| `Q8_0` | -127 to 127 | 32 values of a row | largest magnitude / 127, stored as f16 | ggml |
| `Q4_0` | -8 to 7 | 32 values of a row | value of the largest magnitude / -8, stored as f16 | ggml |
| `INT8`, `INT4` | -127 to 127, -7 to 7 | a row (an output channel) | largest magnitude / 127, / 7 | symmetric, LiteRT |

`Q8_0` and `Q4_0` equal `gguf.quants` bit for bit, so a file that our exporter writes holds what training has seen.
ggml chooses codes by the scale in fp32 and stores it in f16; so do we. The scale of a channel has 11 significant bits
in fp32. So every value `code * scale` is exact in fp32, and each grid maps its own values to themselves.

Shapes: O outputs (rows), I inputs (values of a row), B blocks of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gemma4vec.errors import InputError

# Values at a time: intermediate results stay in a CPU's cache. A GPU is faster with larger pieces.
_PIECE, _PIECE_ON_GPU = 2**17, 2**24


@dataclass(frozen=True)
class Grid:
    """A quantization grid.

    Attributes:
        name: as a GGUF file or a safetensors file calls it.
        bits: of a code.
        block: number of neighboring values of a row that share a scale; None: the whole row does.
    """

    name: str
    bits: int
    block: int | None = None

    @property
    def largest(self) -> int:
        """Largest code."""
        return int(2 ** (self.bits - 1) - 1)

    def size_bytes(self, outputs: int, inputs: int) -> int:
        """Bytes of codes and scales of a matrix; a block's scale takes 2, a row's 4."""
        codes = outputs * inputs * self.bits // 8
        return codes + (2 * outputs * inputs // self.block if self.block else 4 * outputs)


Q8_0, Q4_0 = Grid("q8_0", 8, 32), Grid("q4_0", 4, 32)
INT8, INT4 = Grid("int8", 8), Grid("int4", 4)


class Quantized(NamedTuple):
    """Codes int8 `[O, I]`, and scales `[O, B]`: f16 of blocks, fp32 of rows (B = 1)."""

    codes_OI: Tensor
    scales_OB: Tensor


def quantize(weight_OI: Tensor, grid: Grid) -> Quantized:
    """Codes and scales of a matrix, which is read in fp32.

    Raises:
        InputError: the rows do not divide into blocks, or a value is not finite.
    """
    check_finite(weight_OI)
    parts = [_encode(weight_OI[rows], grid) for rows in row_pieces(weight_OI)]
    codes_OI = torch.cat([codes for codes, _ in parts]).to(torch.int8).view(weight_OI.shape)
    scales_OB = torch.cat([scales for _, scales in parts]).view(weight_OI.shape[0], -1)
    return Quantized(codes_OI, scales_OB.half() if grid.block else scales_OB)


def dequantize(quantized: Quantized) -> Tensor:
    """The values `code * scale`, fp32 `[O, I]`."""
    codes_OI, scales_OB = quantized
    blocks = codes_OI.float().view(*scales_OB.shape, -1)
    return (blocks * scales_OB.float().unsqueeze(-1)).view(codes_OI.shape)


def round_to_grid(weight_OI: Tensor, grid: Grid, out_OI: Tensor | None = None) -> Tensor:
    """The nearest values that the grid has, as `dequantize(quantize(...))` returns them; NaN where a scale overflows.

    Args:
        weight_OI: the matrix, read in fp32.
        grid: the grid.
        out_OI: receives the result in its own dtype; it may be `weight_OI` itself. None: a new tensor like `weight_OI`.
    """
    out_OI = torch.empty_like(weight_OI) if out_OI is None else out_OI
    for rows in row_pieces(weight_OI):
        codes, scales = _encode(weight_OI[rows], grid)
        out_OI[rows].copy_(codes.mul_(scales).view(-1, weight_OI.shape[1]))
    return out_OI


def row_pieces(weight_OI: Tensor) -> Iterator[slice]:
    """The rows of a matrix, as many at a time as fit into a CPU's cache."""
    size = _PIECE if weight_OI.device.type == "cpu" else _PIECE_ON_GPU
    step = max(1, size // max(1, weight_OI.shape[1]))
    for start in range(0, weight_OI.shape[0], step):
        yield slice(start, start + step)


def check_finite(weight_OI: Tensor, name: str = "a matrix") -> None:
    """Refuse values that no scale can express.

    Raises:
        InputError: a value is NaN or infinite; the line begins with `name`.
    """
    if not bool(torch.isfinite(weight_OI).all()):
        raise InputError(f"{name} has values that are NaN or infinite, which no grid has; train it again")


def _encode(weight_OI: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Codes `[N, block]` and rounded scales `[N, 1]`, both in fp32."""
    width = weight_OI.shape[1]
    if grid.block is not None and width % grid.block:
        raise InputError(f"rows of {width} values do not divide into blocks of {grid.block}")
    blocks = weight_OI.float().reshape(-1, grid.block or width)
    if grid.name == "q4_0":
        return _encode_q4_0(blocks)
    if grid.name == "q8_0":
        return _encode_q8_0(blocks)
    return _encode_rows(blocks, grid.largest)


def _encode_q4_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    extreme = torch.where(high > -low, high, low)
    tied = (high == -low).flatten()
    if bool(tied.any()):  # ggml takes the first of equal magnitudes, whose sign counts, also that of a zero
        some = blocks[tied]
        extreme[tied] = some.gather(1, some.abs().argmax(1, keepdim=True))
    scale = extreme / -8
    codes = (blocks * _inverse(scale)).add_(8.5).trunc_().clamp_(0, 15).sub_(8)
    return codes, scale.half().float()


def _encode_q8_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = _magnitude(blocks) / 127
    exact = blocks * _inverse(scale)
    codes = exact.trunc()
    codes.add_(exact.sub_(codes).mul_(2).trunc_())  # halves are rounded away from zero
    return codes.add_(0.0), scale.half().float()  # -0 becomes 0, as in an integer


def _encode_rows(rows: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    scale = _eleven_bits(_magnitude(rows) / largest)
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (rows / divisor).round_().clamp_(-largest, largest).add_(0.0), scale


def _magnitude(rows: Tensor) -> Tensor:
    """Largest magnitude of each row, never -0."""
    return torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True)).abs_()


def _inverse(scale: Tensor) -> Tensor:
    """1 / scale; 0 where there is none: such a scale is 0 in f16, whatever the codes are."""
    inverse = 1 / scale
    return inverse.masked_fill_(~torch.isfinite(inverse), 0.0)


def _eleven_bits(positive: Tensor) -> Tensor:
    """fp32 rounded to 11 significant bits, halves to even."""
    bits = positive.contiguous().view(torch.int32)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF
    return rounded.view(torch.float32)
