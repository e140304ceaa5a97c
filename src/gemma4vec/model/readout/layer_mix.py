"""Layer mix: a trained weighted sum of all layers' states, then the mean.

The sum is ELMo's (Peters et al. 2018, arXiv:1802.05365, eq. 1): softmax weights over layers and one factor. Pooling all
layers of a decoder comes from Tang and Yang 2024 (arXiv:2409.02727), who mix them with cross-attention.

Shapes: L layers, T tokens, N documents, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import BaseInfo, Readout
from gemma4vec.model.readout.documents import at_least_fp32, mean_of


class LayerMix(Readout):
    """Mean over tokens of gamma * sum over layers l of softmax(w)_l h_l: `[N, D]`.

    Layer 0 is the input embeddings. All layers have equal weights at first. States of deep layers can be a hundred
    times larger than those of the first; `normalize` scales each layer's states to unit root mean square.

    Example: `model.readout: {name: layer_mix, normalize: true}`.
    """

    name = "layer_mix"
    needs = frozenset({"all_layers"})

    def __init__(self, settings: Any, base: BaseInfo):
        super().__init__(settings, base)
        self.weights_L = nn.Parameter(torch.zeros(base.layers + 1))
        self.scale = nn.Parameter(torch.ones(())) if settings.scale else None

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        shares_L = torch.softmax(self.weights_L, dim=0)
        mixed_TD: Tensor = sum(  # type: ignore[assignment]  # layer by layer: no fp32 copy of all layers
            share * self._comparable(at_least_fp32(states_TD))
            for share, states_TD in zip(shares_L, states, strict=True)
        )
        if self.scale is not None:
            mixed_TD = self.scale * mixed_TD
        return mean_of(mixed_TD, layout, self.pool_prompt)

    def _comparable(self, states_TD: Tensor) -> Tensor:
        if not self.settings.normalize:
            return states_TD
        return states_TD * torch.rsqrt(states_TD.square().mean(-1, keepdim=True) + 1e-6)
