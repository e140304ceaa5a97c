"""A decoder layer with merged attention: one softmax over the layer's own keys and an encoder's.

T5Gemma 2 (arXiv:2512.14856, section 2): queries attend to the decoder's own tokens (rotary embeddings, causal, within
the window where the layer slides) and to all states of the encoder (same projections and norm, no rotary embedding).
So the layer has exactly the weights of a Gemma 3 layer.

Shapes: R rows, C columns of the decoder, E columns of encoder states, D hidden size, H heads, K key heads, S head size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model import upstream
from gemma4vec.model.backbone.attention import matmul_attention
from gemma4vec.model.backbone.rotary import rotate_half

_FUSED = upstream.sdpa_attention()


class MergedLayer(nn.Module):
    """Runs a Gemma 3 layer with merged attention. The layer may be an encoder's own, which runs by itself elsewhere."""

    layer: Any  # a transformers layer; its attributes are not nn.Module's

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(
        self,
        states_RCD: Tensor,
        encoded_RED: Tensor,
        cosine_RCS: Tensor,
        sine_RCS: Tensor,
        mask: Tensor,
        matmul: bool,
    ) -> Tensor:
        """States after the layer, `[R, C, D]`.

        Args:
            states_RCD: the decoder's states.
            encoded_RED: the encoder's final states.
            cosine_RCS: of rotary embeddings at each cell's position.
            sine_RCS: the same.
            mask: boolean, `[R, 1, C, C + E]`, true where a cell sees one of its row or an encoder's state.
            matmul: attention as two matrix products (`model.backbone.attention`), else torch's fused one.
        """
        layer = self.layer
        mixed = self._attend(layer.input_layernorm(states_RCD), encoded_RED, cosine_RCS, sine_RCS, mask, matmul)
        states_RCD = states_RCD + layer.post_attention_layernorm(mixed)
        inner = layer.mlp(layer.pre_feedforward_layernorm(states_RCD))
        added: Tensor = states_RCD + layer.post_feedforward_layernorm(inner)
        return added

    def _attend(
        self, states_RCD: Tensor, encoded_RED: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor, matmul: bool
    ) -> Tensor:
        attention = self.layer.self_attn
        query = _rotate(attention.q_norm(_heads(attention.q_proj(states_RCD), attention.head_dim)), cosine, sine)
        own = _rotate(attention.k_norm(_heads(attention.k_proj(states_RCD), attention.head_dim)), cosine, sine)
        other = attention.k_norm(_heads(attention.k_proj(encoded_RED), attention.head_dim))
        values = [_heads(attention.v_proj(states), attention.head_dim) for states in (states_RCD, encoded_RED)]
        attend = matmul_attention if matmul else _FUSED
        mixed_RCHS, _ = attend(
            attention,
            query,
            torch.cat([own, other], dim=2),
            torch.cat(values, dim=2),
            mask,
            scaling=attention.scaling,
            dropout=attention.attention_dropout if self.training else 0.0,
        )
        projected: Tensor = attention.o_proj(mixed_RCHS.flatten(2))
        return projected


def _heads(states: Tensor, size: int) -> Tensor:
    """`[R, C, H * S]` to `[R, H, C, S]`."""
    return states.unflatten(-1, (-1, size)).transpose(1, 2)


def _rotate(states_RHCS: Tensor, cosine_RCS: Tensor, sine_RCS: Tensor) -> Tensor:
    return states_RHCS * cosine_RCS[:, None] + rotate_half(states_RHCS) * sine_RCS[:, None]
