"""A text that is given as its tokens, by a file that holds token ids or by a cache of texts tokenised before."""

from collections.abc import Sequence


class PretokenizedText(str):
    """A text that the tokenizer has nothing to do with: the model reads `ids` as they are, without a prompt in front.

    As a string it is its ids, separated by spaces, so that equal tokens are equal texts wherever texts are compared.

    Attributes:
        ids: token ids, special ones included.
        prompt: how many of the first ones are the prompt's.
        key: 64-bit hash that tells equal texts where the text itself is not at hand; None: hash the string.
    """

    ids: Sequence[int]
    prompt: int
    key: int | None

    def __new__(cls, ids: Sequence[int], prompt: int = 0, key: int | None = None) -> "PretokenizedText":
        """Tokens as a text; `ids` must not be empty."""
        made = super().__new__(cls, " ".join(map(str, ids)))
        made.ids = ids
        made.prompt = prompt
        made.key = key
        return made

    def cut(self, max_tokens: int, eos: int | None) -> list[int]:
        """At most so many of the ids; a closing EOS stays at the end, as a tokenizer that adds it would leave it."""
        ids = list(self.ids[:max_tokens])
        if len(self.ids) > max_tokens and eos is not None and self.ids[-1] == eos:
            ids[-1] = eos
        return ids
