"""64-bit hashes that tell equal texts in a batch: a positive that is another row's too is no negative."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from gemma4vec.model.given_tokens import GivenTokens
from gemma4vec.model.prompts import Document


def text_keys(texts: Sequence[str] | Sequence[Document]) -> Tensor:
    """Hashes of texts: `int64[N]`."""
    return torch.tensor([text_key(text) for text in texts], dtype=torch.long)


def text_key(text: str | Document) -> int:
    """Hash of a text, case and white space folded, its title included; of given tokens the one they bring, if any."""
    given = text.text if isinstance(text, Document) else text
    if isinstance(given, GivenTokens) and given.key is not None:
        return given.key
    whole = text if isinstance(text, str) else f"{text.title or ''}\n{text.text}"
    folded = " ".join(whole.lower().split()).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "little", signed=True)
