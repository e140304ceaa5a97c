"""How many tokens a model reads of a document, with its prompt, and where it stops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.text.prompts import Document

UNLIMITED = 2**30
BLOCK = 1_000  # documents tokenized at a time
COUNTED = 100_000  # documents of a corpus: of larger ones only the right documents are counted


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens as one model reads them; `limit` is its own."""

    count: Callable[[Sequence[Document]], list[int]]
    limit: int

    def of(self, corpus: Sequence[Document], wanted: Sequence[int]) -> npt.NDArray[np.int64]:
        """Tokens of the documents at these places, int64[M]; -1 for all others."""
        counts_M = np.full(len(corpus), -1, dtype=np.int64)
        for start in range(0, len(wanted), BLOCK):
            block = list(wanted[start : start + BLOCK])
            counts_M[block] = self.count([corpus[index] for index in block])
        return counts_M


def token_counter(model: Any) -> TokenCounter | None:
    """The counter of an embedder of ours or of sentence-transformers; None for a model without a known limit."""
    if hasattr(model, "encode_document") and hasattr(model, "model") and hasattr(model.model, "encode_document"):
        inner = token_counter(model.model)  # a vector cache, or vectors that are cut
        if inner is not None:
            return inner
    if hasattr(model, "prompts") and hasattr(model, "max_tokens") and hasattr(model.tokenizer, "encode"):
        reserved = int(getattr(getattr(model.encoder, "readout", None), "reserved", 0))

        def ours(documents: Sequence[Document]) -> list[int]:
            prompted = [model.prompts.for_document(one) for one in documents]
            return [one.length for one in model.tokenizer.encode(prompted, UNLIMITED)]

        return TokenCounter(ours, model.max_tokens - reserved)
    published = getattr(model, "model", None)
    limit = getattr(published, "max_seq_length", None)
    if published is None or not isinstance(limit, int):
        return None
    prompt = dict(getattr(published, "prompts", None) or {}).get("document", "")

    def theirs(documents: Sequence[Document]) -> list[int]:
        texts = [prompt + (f"{one.title} {one.text}" if one.title else one.text) for one in documents]
        return [len(ids) for ids in published.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]

    return TokenCounter(theirs, limit)
