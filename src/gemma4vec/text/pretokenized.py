"""Texts as token ids, from a file of token ids or from a cache of tokenized texts."""

from collections.abc import Sequence


class PretokenizedText(str):
    """A text that needs no tokenizer: the model reads `ids` as they are, without adding a prompt.

    The string is the ids, separated by spaces, so that equal tokens are equal texts wherever texts are compared.

    Attributes:
        ids: token ids, special tokens included.
        prompt: number of tokens of the prompt.
        key: 64-bit hash of the original text, to find equal texts without it; None: hash the string.
    """

    ids: Sequence[int]
    prompt: int
    key: int | None

    def __new__(cls, ids: Sequence[int], prompt: int = 0, key: int | None = None) -> "PretokenizedText":
        """Create a text from tokens; `ids` must not be empty."""
        made = super().__new__(cls, " ".join(map(str, ids)))
        made.ids = ids
        made.prompt = prompt
        made.key = key
        return made

    def cut(self, max_tokens: int, eos: int | None) -> list[int]:
        """The first `max_tokens` ids. A final EOS stays at the end, as with a tokenizer that adds it."""
        ids = list(self.ids[:max_tokens])
        if len(self.ids) > max_tokens and eos is not None and self.ids[-1] == eos:
            ids[-1] = eos
        return ids
