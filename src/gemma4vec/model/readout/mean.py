"""Mean of a document's token states (Reimers and Gurevych 2019, arXiv:1908.10084; EmbeddingGemma, arXiv:2509.20354)."""

import torch
from torch import Tensor

from gemma4vec.model.packing import Layout
from gemma4vec.model.readout.base import Readout


class Mean(Readout):
    """The mean over all tokens, summed in fp32; with `pool_prompt` off, over the tokens after the prompt.

    A document that is nothing but its prompt is pooled whole: the mean of no tokens would not be a vector.
    """

    name = "mean"
    sentence_transformers = "mean"

    def pool(self, states_TD: Tensor, layout: Layout) -> Tensor:
        lengths_N = layout.lengths_N
        document_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=lengths_N.device), lengths_N)
        states_TD = states_TD if states_TD.dtype == torch.float64 else states_TD.float()
        counts_N = lengths_N
        if not self.pool_prompt:
            skipped_N = torch.where(layout.prompts_N < lengths_N, layout.prompts_N, 0)
            starts_N = lengths_N.cumsum(0) - lengths_N
            position_T = torch.arange(len(document_T), device=lengths_N.device) - starts_N[document_T]
            kept_T = position_T >= skipped_N[document_T]
            states_TD, document_T = states_TD[kept_T], document_T[kept_T]
            counts_N = lengths_N - skipped_N
        sums_ND = states_TD.new_zeros(len(lengths_N), states_TD.shape[1]).index_add(0, document_T, states_TD)
        return sums_ND / counts_N[:, None]
