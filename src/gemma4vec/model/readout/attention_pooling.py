"""Attention pooling: a trained query attends to the token states.

Suganthan et al. 2025 (arXiv:2503.02656) and EmbeddingGemma (arXiv:2509.20354) compare it with mean, first and last
token and find the mean as good. Ours is the simplest form, without key or value projections.

Shapes: T tokens, N documents, D width, H heads.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.model.readout.base import BaseInfo, Readout
from gemma4vec.model.readout.documents import Documents


class Attention(Readout):
    """Sum of a_i h_i with a = softmax(q · h_i / sqrt(D / H)), separately for each of H slices of the states.

    The query starts at zero, so training starts from the mean. Vectors are `[N, D]`; H must divide D.

    Example: `model.readout: {name: attention, heads: 4}`.
    """

    name = "attention"

    def __init__(self, settings: Any, base: BaseInfo):
        super().__init__(settings, base)
        self.query_D = nn.Parameter(torch.zeros(self.hidden_size))

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        documents = Documents.of(layout, self.pool_prompt)
        heads = self.settings.heads
        states_THd = documents.select(states).unflatten(1, (heads, -1))
        query_Hd = self.query_D.view(heads, -1)
        scores_TH = torch.einsum("thd,hd->th", states_THd, query_Hd) / math.sqrt(query_Hd.shape[1])
        weights_TH = documents.softmax(scores_TH)
        return documents.sums((states_THd * weights_TH[:, :, None]).flatten(1))
