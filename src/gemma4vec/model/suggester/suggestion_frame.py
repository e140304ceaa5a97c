"""How a suggester reads: the base's opening token, a query, titles of documents, then the other query that it writes.

    Query: <query>
    Title: <title>           up to `titles` times
    Other words: <written>

The pieces are tokenized apart, so that none changes with its neighbors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gemma4vec.errors import InputError
from gemma4vec.model.inverter.frame import read_bare, written
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.model.tokenize.tokenizer import Counts, TextTokenizer, added_tokens
from gemma4vec.recipe.inversion import Reading

_QUERY, _TITLE, _LAST = "Query: ", "\nTitle: ", "\nOther words: "
# Fewer tokens of a text than this are not worth a suggester.
_SHORTEST = 4


@dataclass(frozen=True)
class SuggestionFrame:
    """What stands before a suggestion.

    Attributes:
        opening: BOS where the base has one.
        query, title, last: tokens before a query, before each title, before what is written.
        reading: most tokens of each piece.
        end_id: the token that ends a text.
        text_tokens: longest suggestion, without its end.
        closing: number of special tokens that the tokenizer puts after a text.
    """

    opening: tuple[int, ...]
    query: tuple[int, ...]
    title: tuple[int, ...]
    last: tuple[int, ...]
    reading: Reading
    end_id: int
    text_tokens: int
    closing: int

    @classmethod
    def of(
        cls, tokenizer: TextTokenizer, reading: Reading, max_tokens: int, key: str = "model.max_tokens"
    ) -> "SuggestionFrame":
        """The frame of a base's tokenizer; `max_tokens` counts all that the suggester reads and writes.

        Args:
            key: of the recipe that sets the limit, for the error.

        Raises:
            InputError: no token ends a text, or `max_tokens` leaves a text fewer than 4 tokens.
        """
        if tokenizer.closing_id is None:
            raise InputError("model.base: its tokenizer has no EOS token, with which a suggestion ends")
        opening, closing = added_tokens(tokenizer.hf_tokenizer)
        quiet = replace(tokenizer, counts=Counts())
        query, title, last = (
            tuple(ids) for ids in read_bare(quiet, [_QUERY, _TITLE, _LAST], 64, len(opening), len(closing))
        )
        before = len(opening) + len(query) + reading.query_tokens + len(last)
        before += reading.titles * (len(title) + reading.title_tokens)
        if max_tokens - before < _SHORTEST:
            raise InputError(
                f"{key}: {max_tokens} leaves {max(0, max_tokens - before)} tokens for a suggestion after "
                f"{before} of the query and {reading.titles} titles; give at least {before + _SHORTEST}"
            )
        end, room = int(tokenizer.closing_id), max_tokens - before
        return cls(tuple(opening), query, title, last, reading, end, room, len(closing))

    @property
    def longest(self) -> int:
        """Most tokens of all that is read and written, but for the end."""
        before = len(self.opening) + len(self.query) + self.reading.query_tokens + len(self.last)
        return before + self.reading.titles * (len(self.title) + self.reading.title_tokens) + self.text_tokens

    def before(
        self, tokenizer: TextTokenizer, queries: Sequence[str], titles: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """The tokens before each suggestion: of a query, and of its first titles that are not blank."""
        kept = [[title for title in several if title.strip()][: self.reading.titles] for several in titles]
        flat = [" ".join(title.split()) for several in kept for title in several]
        title_ids = iter(self._read(tokenizer, flat, self.reading.title_tokens))
        found = []
        queries = [" ".join(query.split()) for query in queries]
        for ids, several in zip(self._read(tokenizer, queries, self.reading.query_tokens), kept, strict=True):
            tokens = [*self.opening, *self.query, *ids]
            for _ in several:
                tokens += [*self.title, *next(title_ids)]
            found.append([*tokens, *self.last])
        return found

    def read(self, tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each suggestion, one more than `text_tokens` at most: then it is too long."""
        return self._read(tokenizer, texts, self.text_tokens + 1)

    def frame(self, before: Sequence[int], ids: Sequence[int]) -> tuple[Tokens, list[int]]:
        """(what is read, what is predicted); a cut suggestion has no end."""
        return written(before, ids, self.text_tokens, self.end_id)

    def _read(self, tokenizer: TextTokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
        return read_bare(tokenizer, texts, limit, len(self.opening), self.closing)
