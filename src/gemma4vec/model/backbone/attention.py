"""Attention functions: the library's two, where rows share beginnings, and one of ours for compiled layers on a CPU.

Ours is two matrix products and a softmax. On CPUs torch's fused attention runs its products far below the machine's
rate (measured: an AMD EPYC with AVX512-BF16 trains Gemma 3 270M 14 to 35% faster this way, rows of 256 and 128 tokens).
It holds the scores of a micro-batch in memory, so it is for short rows; and it is only fast compiled, where softmax,
mask and scale become one loop.

Legend: R rows, H query heads, K key heads, G = H / K, C columns, S cells of shared beginnings, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "gemma4vec_grouped"
SHARED = "gemma4vec_shared"
FLEX = "gemma4vec_flex"
# Longest row in tokens: scores are R * H * C * C values a layer, 2 million at 2048 tokens in rows of 256.
LONGEST_ROW = 512


def matmul_attention(
    module: nn.Module,
    query_RHCD: Tensor,
    key_RKCD: Tensor,
    value_RKCD: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention (Vaswani et al. 2017, eq. 1) with grouped key heads (Ainslie et al. 2023).

    Query heads that share a key head are one product, so keys and values are never copied. The softmax is in fp32 (or
    wider). `attention_mask` is boolean, `[R, 1, C, C]` or, where rows share beginnings, `[R, 1, C, S + C]`. With
    `softcap` s a score x becomes s * tanh(x / s) (Gemma 2, arXiv:2408.00118, section 2). Gives `[R, C, H, D]`.
    """
    rows, heads, queries, size = query_RHCD.shape
    groups = heads // key_RKCD.shape[1]
    scaling = size**-0.5 if scaling is None else scaling
    seen = attention_mask.shape[3]
    key_RKCD, value_RKCD = (with_beginnings(x, seen) for x in (key_RKCD, value_RKCD))
    query = query_RHCD.reshape(rows, -1, groups * queries, size)
    scores = torch.matmul(query, key_RKCD.transpose(2, 3)).view(rows, -1, groups, queries, seen)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = torch.where(attention_mask[:, :, None], scores, float("-inf"))
    weights = torch.softmax(scores, dim=-1).to(query_RHCD.dtype)
    weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
    mixed = torch.matmul(weights.view(rows, -1, groups * queries, seen), value_RKCD)
    return mixed.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


def with_beginnings(states_RKCD: Tensor, seen: int) -> Tensor:
    """Keys or values `[R, K, S + C, D]` that each row sees, `seen` in all: the first S of row 0, then the row's own."""
    shared = seen - states_RKCD.shape[2]
    if not shared:
        return states_RKCD
    shared_RKSD = states_RKCD[:1, :, :shared].expand(states_RKCD.shape[0], -1, -1, -1)
    return torch.cat([shared_RKSD, states_RKCD], dim=2)


def shared_attention(
    module: nn.Module, query_RHCD: Tensor, key_RKCD: Tensor, value_RKCD: Tensor, attention_mask: Tensor, **settings: Any
) -> tuple[Tensor, None]:
    """torch's fused attention, as the library calls it, where rows share beginnings: the mask is `[R, 1, C, S + C]`."""
    keys, values = (with_beginnings(x, attention_mask.shape[3]) for x in (key_RKCD, value_RKCD))
    result: tuple[Tensor, None] = sdpa_attention_forward(module, query_RHCD, keys, values, attention_mask, **settings)
    return result


def block_mask(mask_R1CC: Tensor) -> BlockMask:
    """The same mask, and which blocks of it hold nothing, so that they are left out."""
    rows, _, queries, seen = mask_R1CC.shape

    def sees(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask_R1CC[row, 0, query, key]

    return create_block_mask(sees, rows, None, queries, seen, device=str(mask_R1CC.device))


def flex_attention(
    module: nn.Module,
    query_RHCD: Tensor,
    key_RKCD: Tensor,
    value_RKCD: Tensor,
    attention_mask: BlockMask,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """torch's attention by blocks (Dong et al. 2024, arXiv:2412.05496), as the library calls it, by a `block_mask`.

    For rows much longer than a block, which is 128 tokens. On a CPU torch has no backward pass for it.
    """
    keys, values = (with_beginnings(x, attention_mask.seq_lengths[1]) for x in (key_RKCD, value_RKCD))
    result: tuple[Tensor, Tensor | None] = flex_attention_forward(
        module, query_RHCD, keys, values, attention_mask, **settings
    )
    return result


ALL_ATTENTION_FUNCTIONS.register(NAME, matmul_attention)
ALL_ATTENTION_FUNCTIONS.register(FLEX, flex_attention)
ALL_ATTENTION_FUNCTIONS.register(SHARED, shared_attention)
