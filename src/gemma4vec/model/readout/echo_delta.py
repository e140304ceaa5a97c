"""Echo-delta: the backbone reads the text twice, so the second copy has seen all of it even in a causal model.

Echo embeddings (Springer et al. 2024, arXiv:2402.15449) pool the second copy. Ours adds the difference between the
copies: what a state gains from having seen the text before.

Shapes: T tokens, N documents, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens
from gemma4vec.model.readout.base import BaseInfo, Readout
from gemma4vec.model.readout.documents import Documents, at_least_fp32
from gemma4vec.text.prompts import Prompted


class EchoDelta(Readout):
    """m2 + delta (m2 - m1), `[N, D]`, or both terms concatenated, `[N, 2 D]`; m1, m2 are the means of the copies.

    The backbone reads BOS, prompt, text, separator, text. The prompt is read once and not pooled. The token limit
    applies to the first copy with its prompt. A text that consists of its prompt alone is repeated whole.

    Example: `model.readout: {name: echo_delta, delta: 0.5, join: sum}`.
    """

    name = "echo_delta"
    needs = frozenset({"twice"})

    def __init__(self, settings: Any, base: BaseInfo):
        super().__init__(settings, base)
        self.delta = nn.Parameter(torch.tensor(float(settings.delta)))

    @classmethod
    def pools_prompt(cls, settings: Any) -> bool:
        return False

    @classmethod
    def width(cls, settings: Any, hidden_size: int) -> int:
        return 2 * hidden_size if settings.join == "concat" else hidden_size

    def prepare(
        self, tokens: Sequence[Tokens], texts: Sequence[Prompted], tokenizer: PreTrainedTokenizerFast
    ) -> list[Tokens]:
        separator = tokenizer(self.settings.separator, add_special_tokens=False)["input_ids"]
        return [_twice(text, separator, tokenizer.bos_token_id) for text in tokens]

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        documents = Documents.of(layout, pool_prompt=True)
        position_T, document_T = documents.position_T, documents.document_T
        copies_N = layout.lengths_N - layout.marks_N
        starts_T, copies_T = layout.prompts_N[document_T], copies_N[document_T]
        states_TD = at_least_fp32(states)
        first_ND = documents.weighted_means(
            states_TD, ((position_T >= starts_T) & (position_T < starts_T + copies_T)).to(states_TD.dtype)
        )
        second_ND = documents.weighted_means(states_TD, (position_T >= layout.marks_N[document_T]).to(states_TD.dtype))
        difference_ND = self.delta * (second_ND - first_ND)
        if self.settings.join == "concat":
            return torch.cat([second_ND, difference_ND], dim=1)
        return second_ND + difference_ND


def _twice(text: Tokens, separator: Sequence[int], bos: int | None) -> Tokens:
    """Repeat the text after its prompt. `prompt` is the start of the first copy, `mark` that of the second."""
    ids = list(text.ids)
    start = max(text.prompt, int(ids[0] == bos))
    if start >= len(ids):
        start = 0
    return text._replace(ids=[*ids, *separator, *ids[start:]], prompt=start, mark=len(ids) + len(separator))
