"""Sums, means and softmaxes over the tokens of each document. The tokens of all documents form one sequence.

Shapes: T tokens, N documents, D width, H heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemma4vec.model.packing.packed_batch import PackedBatch


def at_least_fp32(states: Tensor) -> Tensor:
    """Convert to fp32, unless float64: sums in bf16 lose small values."""
    return states if states.dtype == torch.float64 else states.float()


def first_token_indices(layout: PackedBatch) -> Tensor:
    """Index of each document's first token among all tokens: `[N]`."""
    return layout.lengths_N.cumsum(0) - layout.lengths_N


def last_token_indices(layout: PackedBatch) -> Tensor:
    """Index of each document's last token among all tokens: `[N]`."""
    return layout.lengths_N.cumsum(0) - 1


@dataclass(frozen=True)
class Documents:
    """Which tokens are pooled, and to which documents they belong.

    Attributes:
        document_T: document number of each pooled token.
        position_T: position of each pooled token in its document, from 0.
        indices: indices of the pooled tokens among all tokens; None: all are pooled.
        count: N.
    """

    document_T: Tensor
    position_T: Tensor
    indices: Tensor | None
    count: int

    @classmethod
    def of(cls, layout: PackedBatch, pool_prompt: bool) -> "Documents":
        """All tokens, or the tokens after the prompt.

        A document that consists of its prompt alone is pooled whole, because the mean of no tokens is no vector.
        """
        lengths_N = layout.lengths_N
        numbers_N = torch.arange(len(lengths_N), device=lengths_N.device)
        pooled_N = lengths_N
        if not pool_prompt:
            pooled_N = lengths_N - torch.where(layout.prompts_N < lengths_N, layout.prompts_N, 0)
        # Given the output size, repeat_interleave needs no GPU sync.
        tokens = layout.real_tokens if pool_prompt else layout.after_prompts
        document_T = torch.repeat_interleave(numbers_N, pooled_N, output_size=tokens)
        position_T = torch.arange(tokens, device=lengths_N.device) - (pooled_N.cumsum(0) - lengths_N)[document_T]
        indices = None if pool_prompt else first_token_indices(layout)[document_T] + position_T
        return cls(document_T, position_T, indices, len(lengths_N))

    def select(self, states_TD: Tensor) -> Tensor:
        """States of the pooled tokens, at least fp32, from the states of all tokens."""
        return at_least_fp32(states_TD if self.indices is None else states_TD.index_select(0, self.indices))

    def sums(self, values_TD: Tensor) -> Tensor:
        """Sum over the pooled tokens of each document: `[N, ...]`."""
        return values_TD.new_zeros(self.count, *values_TD.shape[1:]).index_add(0, self.document_T, values_TD)

    def weighted_means(self, states_TD: Tensor, weights_T: Tensor) -> Tensor:
        """Weighted mean of the pooled states: `[N, D]`. The weights need not sum to one."""
        return self.sums(states_TD * weights_T[:, None]) / self.sums(weights_T)[:, None]

    def means(self, states_TD: Tensor) -> Tensor:
        """Mean of the pooled states: `[N, D]`."""
        counts_N = self.sums(torch.ones_like(self.document_T))  # bincount would force a GPU sync
        return self.sums(states_TD) / counts_N[:, None]

    def softmax(self, scores_TH: Tensor) -> Tensor:
        """Softmax over the pooled tokens of each document: `[T, H]`."""
        index_TH = self.document_T[:, None].expand_as(scores_TH)
        largest_NH = scores_TH.new_full((self.count, scores_TH.shape[1]), float("-inf"))
        # The maximum only keeps exp() in range and cancels out, so it needs no gradient.
        largest_NH = largest_NH.scatter_reduce(0, index_TH, scores_TH.detach(), "amax")
        exponentials_TH = (scores_TH - largest_NH[self.document_T]).exp()
        return exponentials_TH / self.sums(exponentials_TH)[self.document_T]


def mean_of(states_TD: Tensor, layout: PackedBatch, pool_prompt: bool) -> Tensor:
    """Mean of each document's states, `[N, D]`, with or without the prompt's tokens."""
    documents = Documents.of(layout, pool_prompt)
    return documents.means(documents.select(states_TD))
