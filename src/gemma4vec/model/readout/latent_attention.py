"""Latent attention: token states attend to trained latents, then an MLP, then the mean.

NV-Embed (Lee et al. 2024, arXiv:2405.17428), as in its released model code: layer norms before queries, latents and
MLP, projections without bias, a gated GELU as the MLP, residual connections around both. docs/guides/readouts.md lists
the differences.

Shapes: T tokens, R latents, H heads, d head size, W = H * d, D width of the base.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import BaseInfo, Readout
from gemma4vec.model.readout.documents import Documents


class GatedMlp(nn.Module):
    """GEGLU (Shazeer 2020, arXiv:2002.05202): one half of the inner values times the GELU of the other half."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, 2 * inner)
        self.down = nn.Linear(inner, width)

    def forward(self, states_TD: Tensor) -> Tensor:
        """`[T, D]` to `[T, D]`."""
        values_TI, gates_TI = self.up(states_TD).chunk(2, dim=-1)
        mixed: Tensor = self.down(values_TI * functional.gelu(gates_TI))
        return mixed


class LatentAttention(Readout):
    """Mean over tokens of x + MLP(LN(x)), with x = h + MHA(LN(h), LN(latents)): `[N, D]`.

    The queries are the token states; keys and values are the latents. So a token's result depends on its state alone.
    The number of heads must divide `hidden_size`.

    Example: `model.readout: {name: latent_attention, latents: 128, heads: 8}`.
    """

    name = "latent_attention"

    def __init__(self, settings: Any, base: BaseInfo):
        super().__init__(settings, base)
        width = self.hidden_size
        inner = settings.hidden_size or width
        self.latents_RD = nn.Parameter(torch.randn(settings.latents, width))
        self.query_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = GatedMlp(width, settings.mlp * width)

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        documents = Documents.of(layout, self.pool_prompt)
        states_TD = documents.select(states)
        attended_TD = states_TD + self._attend(self.query_norm(states_TD))
        return documents.means(attended_TD + self.mlp(self.mlp_norm(attended_TD)))

    def _attend(self, queries_TD: Tensor) -> Tensor:
        latents_RD = self.latent_norm(self.latents_RD)
        query, key, value = (
            projected.unflatten(1, (self.settings.heads, -1)).transpose(0, 1)  # [H, tokens or latents, d]
            for projected in (self.query(queries_TD), self.key(latents_RD), self.value(latents_RD))
        )
        mixed_HTd = functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.output(mixed_HTd.transpose(0, 1).flatten(1))
        return mixed
