"""A trained suggester in use: other queries for a query and the titles of its first hits. No vector is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemma4vec.fanout.keep import same_words
from gemma4vec.inversion.candidates import clean
from gemma4vec.inversion.generate import Written, write_by_nucleus, write_greedily
from gemma4vec.inversion.next_token import CachedNextToken, Forbidden, text_of
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.suggester.suggester_folder import OpenSuggester, find_suggester, open_suggester
from gemma4vec.text.prompts import Document

# Suggestions that are written at the same time: their logits take 1 MB each with Gemma's vocabulary.
_ROWS = 64
# Words that stand for a title.
_WORDS = 12


@dataclass(frozen=True)
class WrittenQuery:
    """A suggestion.

    Attributes:
        text: without control characters.
        log_probability: natural logarithm, by the model as it is, the end included.
        ended: whether the model ended it; if not, it was cut at the limit.
    """

    text: str
    log_probability: float
    ended: bool


def title_of(document: Document) -> str:
    """A document's title, or its first words where it has none."""
    return document.title or " ".join(document.text.split()[:_WORDS])


class Suggester:
    """Writes other queries; what it writes for a query does not depend on the others."""

    def __init__(self, parts: OpenSuggester):
        self.parts, self.facts = parts, parts.facts
        self._forbid = Forbidden(parts, parts.frame.end_id)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        option: str = "--suggester",
    ) -> "Suggester":
        """Open a suggester.

        Args:
            folder: its folder, or its run's.
            device: device of the weights; None: the best one here.
            dtype: "fp32", "bf16" or None for what is fast here.
            option: what complaints begin with.

        Raises:
            InputError: there is none, or it is damaged.
        """
        where = device or choose_device().name
        path = find_suggester(folder, option)
        return cls(open_suggester(path, dtype=choose_dtype(where, dtype or "auto").dtype, device=where))

    def write(
        self, query: str, titles: Sequence[str], n: int, *, temperature: float = 0.7, top_p: float = 0.95, seed: int = 0
    ) -> list[WrittenQuery]:
        """`n` texts for a query, perhaps with repetitions: the likeliest tokens' first, the others sampled.

        Seed and number of a text decide its draws.
        """
        frame = self.parts.frame
        (before,) = frame.before(self.parts.tokenizer, [query], [titles])
        found = write_greedily(self._next_token(before, 1), 1, end_id=frame.end_id, limit=frame.text_tokens)
        for first in range(1, n, _ROWS):
            rows = range(first, min(first + _ROWS, n))
            draws = np.stack([np.random.default_rng([seed, row]).random(frame.text_tokens) for row in rows])
            found += write_by_nucleus(
                self._next_token(before, len(rows)), draws, end_id=frame.end_id, temperature=temperature, top_p=top_p
            )
        return [self._written(one) for one in found[:n]]

    def suggest(self, query: str, titles: Sequence[str], n: int, *, seed: int = 0) -> list[WrittenQuery]:
        """Up to `n` different texts that are not the query, the likeliest first; twice as many are written."""
        seen, found = {same_words(query)}, []
        for one in sorted(self.write(query, titles, 2 * n, seed=seed), key=lambda one: -one.log_probability):
            words = same_words(one.text)
            if one.text and words not in seen:
                seen.add(words)
                found.append(one)
        return found[:n]

    def _next_token(self, before: list[int], rows: int) -> CachedNextToken:
        return CachedNextToken(self.parts, before, rows, self._forbid)

    def _written(self, one: Written) -> WrittenQuery:
        return WrittenQuery(clean(text_of(self.parts, one.ids))[0].strip(), one.log_probability, one.ended)
