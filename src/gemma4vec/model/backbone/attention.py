"""Attention functions: the library's two, extended for shared prefixes, and one of ours for compiled layers on a CPU.

Ours is two matrix products and a softmax. On CPUs torch's fused attention runs its products far below the machine's
rate: an AMD EPYC with AVX512-BF16 trains Gemma 3 270M 14 to 35% faster this way (measured, rows of 256 and 128 tokens).
It stores the scores of a micro-batch, so it suits short rows. It is fast only when compiled, because softmax, mask and
scale then become one loop.

Shapes: R rows, H query heads, K key heads, G = H / K, C columns, S cells of shared prefixes, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface

from gemma4vec.model import upstream

NAME = "gemma4vec_grouped"
SHARED = "gemma4vec_shared"
FLEX = "gemma4vec_flex"
# Longest row in tokens. Each layer stores R * H * C * C scores: 2 million for 2048 tokens in rows of 256.
LONGEST_ROW = 512
_LIBRARY_SDPA, _LIBRARY_FLEX = upstream.sdpa_attention(), upstream.flex_attention()


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

    Query heads that share a key head form one product, so keys and values are never copied. The softmax is computed in
    fp32 or wider.

    Args:
        module: the attention layer; its `training` flag switches dropout.
        query_RHCD: queries.
        key_RKCD: keys.
        value_RKCD: values.
        attention_mask: boolean, `[R, 1, C, C]`, or `[R, 1, C, S + C]` with shared prefixes.
        scaling: factor on the scores; None: 1 / sqrt(D).
        dropout: probability of dropping a weight.
        softcap: s; a score x becomes s * tanh(x / s) (Gemma 2, arXiv:2408.00118, section 2).

    Returns:
        `[R, C, H, D]`, and None where the library's interface has attention weights.
    """
    rows, heads, queries, size = query_RHCD.shape
    groups = heads // key_RKCD.shape[1]
    scaling = size**-0.5 if scaling is None else scaling
    seen = attention_mask.shape[3]
    key_RKCD, value_RKCD = (prepend_shared(x, seen) for x in (key_RKCD, value_RKCD))
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


def prepend_shared(states_RKCD: Tensor, seen: int) -> Tensor:
    """Keys or values `[R, K, S + C, D]` of `seen` = S + C cells: the first S of row 0, then each row's own."""
    shared = seen - states_RKCD.shape[2]
    if not shared:
        return states_RKCD
    shared_RKSD = states_RKCD[:1, :, :shared].expand(states_RKCD.shape[0], -1, -1, -1)
    return torch.cat([shared_RKSD, states_RKCD], dim=2)


def shared_attention(
    module: nn.Module, query_RHCD: Tensor, key_RKCD: Tensor, value_RKCD: Tensor, attention_mask: Tensor, **settings: Any
) -> tuple[Tensor, None]:
    """torch's fused attention with shared prefixes, as the library calls it; the mask is `[R, 1, C, S + C]`."""
    keys, values = (prepend_shared(x, attention_mask.shape[3]) for x in (key_RKCD, value_RKCD))
    return _LIBRARY_SDPA(module, query_RHCD, keys, values, attention_mask, **settings)


def block_mask(mask_R1CC: Tensor) -> BlockMask:
    """Convert a mask for block-sparse attention, which skips blocks without a true cell."""
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
    """torch's block-sparse attention (Dong et al. 2024, arXiv:2412.05496), as the library calls it, with a mask.

    For rows much longer than a block, which has 128 tokens. On a CPU torch has no backward pass for it.
    """
    keys, values = (prepend_shared(x, attention_mask.seq_lengths[1]) for x in (key_RKCD, value_RKCD))
    return _LIBRARY_FLEX(module, query_RHCD, keys, values, attention_mask, **settings)


AttentionInterface.register(NAME, matmul_attention)
AttentionInterface.register(FLEX, flex_attention)
AttentionInterface.register(SHARED, shared_attention)
