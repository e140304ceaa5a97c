"""Contextual token: the decoder reads a small encoder's vector of the text as one more token.

Causal2Vec (Lin et al. 2025, arXiv:2507.23386); docs/guides/readouts.md lists the differences. All later tokens see this
token, so even the first tokens of a causal model know what the text is about.

Shapes: T tokens, N documents, E width of the small encoder, D width of the base.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens
from gemma4vec.model.readout.base import BaseInfo, Readout
from gemma4vec.model.readout.context_encoder import ContextEncoder, find_encoder
from gemma4vec.model.readout.documents import first_token_indices, last_token_indices
from gemma4vec.text.prompts import Prompted


class ContextualToken(Readout):
    """The final states of the contextual token and of EOS, concatenated: `[N, 2 D]`.

    The token follows BOS and precedes the prompt. The small encoder reads the text without its prompt. `size` is a
    trained factor on a vector of unit root mean square, which starts at the size of the base's token embeddings: a
    vector a hundred times smaller than its neighbors would be lost in the residual stream.

    Raises:
        InputError: the small encoder does not exist or cannot be opened.

    Example: `model.readout: {name: contextual_token, encoder: "bundled:all-minilm-l6-v2"}`.
    """

    name = "contextual_token"
    needs = frozenset({"eos", "context"})
    reserved = 1

    def __init__(self, settings: Any, base: BaseInfo):
        super().__init__(settings, base)
        self.context = ContextEncoder(find_encoder(settings.encoder, saved_with=base.folder))
        entering = base.input_size or base.hidden_size
        inner = settings.hidden_size or entering
        self.projection = nn.Sequential(nn.Linear(self.context.dimension, inner), nn.GELU(), nn.Linear(inner, entering))
        self.size = nn.Parameter(torch.tensor(base.embedding_size))

    @classmethod
    def width(cls, settings: Any, hidden_size: int) -> int:
        return 2 * hidden_size

    def prepare(
        self, tokens: Sequence[Tokens], texts: Sequence[Prompted], tokenizer: PreTrainedTokenizerFast
    ) -> list[Tokens]:
        placeholder = int(tokenizer.pad_token_id or 0)
        prepared = []
        for text, prompted in zip(tokens, texts, strict=True):
            at = int(text.ids[0] == tokenizer.bos_token_id)
            ids = [*text.ids[:at], placeholder, *text.ids[at:]]
            prepared.append(Tokens(ids, text.prompt + (text.prompt > 0), mark=at, context=prompted.text))
        return prepared

    def override_embeddings(self, layout: PackedBatch) -> EmbeddingOverrides:
        weight = self.projection[0].weight
        vectors_NE = self.context(layout.contexts).to(weight.device, weight.dtype)
        projected_ND = self.projection(vectors_NE)
        unit_ND = projected_ND * torch.rsqrt(projected_ND.square().mean(-1, keepdim=True) + 1e-12)
        return EmbeddingOverrides(layout.cells_T[self._tokens(layout)], self.size * unit_ND)

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        return torch.cat([states[self._tokens(layout)], states[last_token_indices(layout)]], dim=1)

    def _tokens(self, layout: PackedBatch) -> Tensor:
        return first_token_indices(layout) + layout.marks_N
