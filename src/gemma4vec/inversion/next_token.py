"""Scores of the next token of texts that grow after the same tokens, with keys and values of earlier tokens kept.

Shapes: R rows, V vocabulary, D hidden size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gemma4vec.model.inverter.cached_states import CachedStates
from gemma4vec.model.inverter.causal_base import CausalBase
from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides


class CachedNextToken:
    """Scores of the next token (`inversion.generate.NextToken`).

    Args:
        base: what writes.
        before: tokens before each text.
        rows: number of texts.
        forbid: takes out tokens that must not come.
        overrides: makes other embeddings for some of the cells before the texts; None: there are none.
    """

    def __init__(
        self,
        base: CausalBase,
        before: list[int],
        rows: int,
        forbid: "Forbidden",
        overrides: Callable[[], EmbeddingOverrides] | None = None,
    ):
        self._base, self._before, self._rows, self._forbid = base, before, rows, forbid
        self._overrides = overrides
        self._states = CachedStates(base.backbone)

    def start(self) -> Tensor:
        """Logits `[R, V]` of each text's first token."""
        overrides = None if self._overrides is None else self._overrides()
        return self._logits(self._states.start(self._before, overrides, self._rows))

    def step(self, tokens_R: Tensor) -> Tensor:
        """Add a token to each row; the logits `[R, V]` of the next."""
        return self._logits(self._states.step(tokens_R))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self._states.select(rows)

    @torch.no_grad()
    def _logits(self, states_RD: Tensor) -> Tensor:
        logits_RV = self._base.head.logits(states_RD)
        return self._forbid(logits_RV if logits_RV.dtype == torch.float64 else logits_RV.float())


class Forbidden:
    """Tokens that no text holds: special ones other than the end, and rows of the head that no token has."""

    def __init__(self, base: CausalBase, end_id: int):
        vocabulary, tokenizer = len(base.head.weight_VD), base.tokenizer.hf_tokenizer
        special = {int(one) for one in tokenizer.all_special_ids} - {end_id}
        known = {one for one in tokenizer.get_vocab().values() if one < vocabulary}
        self._tokens = torch.tensor(sorted(special | (set(range(vocabulary)) - known)), dtype=torch.long)

    def __call__(self, logits_RV: Tensor) -> Tensor:
        """Logits without these tokens."""
        return logits_RV.index_fill(1, self._tokens.to(logits_RV.device), -float("inf"))


def text_of(base: CausalBase, ids: tuple[int, ...]) -> str:
    """The text of tokens, as the tokenizer writes it."""
    tokenizer = base.tokenizer.hf_tokenizer
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
