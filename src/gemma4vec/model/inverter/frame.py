"""How a decoder reads: the base's opening token if it has one, soft tokens, the text; it predicts the text and its end.

Shapes: T real tokens, P soft tokens, M predicted tokens, N texts, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens
from gemma4vec.model.tokenize.tokenizer import Counts, TextTokenizer, added_tokens
from gemma4vec.text.prompts import Prompted

# Fewer tokens of a text than this are not worth a decoder.
_SHORTEST = 4


@dataclass(frozen=True)
class DecoderFrame:
    """What stands around a text.

    Attributes:
        opening: tokens before the soft tokens: BOS where the base has one.
        prefix_tokens: P.
        padding_id: the token in the soft tokens' cells; models with per-layer embeddings read it.
        end_id: the token that ends a text.
        text_tokens: longest text, without its end.
        closing: number of special tokens that the tokenizer puts after a text.
    """

    opening: tuple[int, ...]
    prefix_tokens: int
    padding_id: int
    end_id: int
    text_tokens: int
    closing: int

    @classmethod
    def of(
        cls, tokenizer: TextTokenizer, prefix_tokens: int, max_tokens: int, key: str = "model.max_tokens"
    ) -> "DecoderFrame":
        """The frame of a base's tokenizer; `max_tokens` counts all that the decoder reads.

        Args:
            key: of the recipe that sets the limit, for the error.

        Raises:
            InputError: no token ends a text, or `max_tokens` leaves a text fewer than 4 tokens.
        """
        if tokenizer.closing_id is None:
            raise InputError("model.base: its tokenizer has no EOS token, with which a decoder ends a text")
        opening, closing = added_tokens(tokenizer.hf_tokenizer)
        room = max_tokens - len(opening) - prefix_tokens
        if room < _SHORTEST:
            raise InputError(
                f"{key}: {max_tokens} leaves {max(0, room)} tokens for a text after {prefix_tokens} soft "
                f"tokens; give at least {len(opening) + prefix_tokens + _SHORTEST}"
            )
        end = int(tokenizer.closing_id)
        return cls(tuple(opening), prefix_tokens, tokenizer.padding_id, end, room, len(closing))

    @property
    def before(self) -> list[int]:
        """The tokens before a text; soft tokens take the place of the last P."""
        return [*self.opening, *[self.padding_id] * self.prefix_tokens]

    def read(self, tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text without special ones, one more than `text_tokens` at most: then the text is too long."""
        return read_bare(tokenizer, texts, self.text_tokens + 1, len(self.opening), self.closing)

    def longer(self, tokenizer: TextTokenizer, texts: Sequence[str]) -> int:
        """How many texts are longer than `text_tokens`; they are not counted as read."""
        quiet = replace(tokenizer, counts=Counts())
        return sum(len(ids) > self.text_tokens for ids in self.read(quiet, texts))

    def frame(self, ids: Sequence[int]) -> tuple[Tokens, list[int]]:
        """(what is read, what is predicted from the last soft token on); a cut text has no end."""
        return written(self.before, ids, self.text_tokens, self.end_id)

    def prefix_cells(self, layout: PackedBatch) -> Tensor:
        """Flat cells `[N * P]` of the soft tokens, text after text in the layout's order."""
        starts_N = layout.lengths_N.cumsum(0) - layout.lengths_N + len(self.opening)
        places_NP = starts_N[:, None] + torch.arange(self.prefix_tokens)
        return layout.cells_T[places_NP.flatten()]

    def predicting_places(self, layout: PackedBatch) -> Tensor:
        """Places `[M]` among the layout's real tokens whose states predict: from the last soft token to the end."""
        return predicting_places(layout, [len(self.before)] * len(layout.documents))


def read_bare(
    tokenizer: TextTokenizer, texts: Sequence[str], limit: int, opening: int, closing: int
) -> list[list[int]]:
    """At most `limit` tokens of each text, without the special ones that the tokenizer adds (`opening`, `closing`)."""
    found = []
    for tokens in tokenizer.encode([Prompted("", text) for text in texts], opening + limit + closing):
        ids = list(tokens.ids)[opening:]
        found.append(ids[: len(ids) - closing] if closing else ids)
    return found


def written(before: Sequence[int], ids: Sequence[int], limit: int, end_id: int) -> tuple[Tokens, list[int]]:
    """(what is read, what is predicted after `before`) of a text of at most `limit` tokens; a cut text has no end."""
    shown = list(ids[:limit])
    targets = shown if len(ids) > limit else [*shown, end_id]
    return Tokens([*before, *targets[:-1]]), targets


def predicting_places(layout: PackedBatch, before: Sequence[int]) -> Tensor:
    """Places `[M]` among the layout's real tokens whose states predict: of each text from the last of its `before`
    first tokens on."""
    starts_N = layout.lengths_N.cumsum(0) - layout.lengths_N
    spans = zip(starts_N.tolist(), layout.lengths_N.tolist(), before, strict=True)
    return torch.cat([torch.arange(start + first - 1, start + length) for start, length, first in spans])


def soft_tokens(cells_K: Tensor, tokens_NPD: Tensor) -> EmbeddingOverrides:
    """Soft tokens `[N, P, D]` in the place of the tokens at `cells_K`, K = N * P."""
    return EmbeddingOverrides(cells_K, tokens_NPD.flatten(0, 1))
