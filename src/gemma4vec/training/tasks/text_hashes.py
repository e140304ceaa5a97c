"""64-bit hashes that tell equal texts in a batch: a positive that is another row's too is no negative."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key


def text_keys(texts: Sequence[str] | Sequence[Document]) -> Tensor:
    """Hashes of texts: `int64[N]`."""
    return torch.tensor([text_key(text) for text in texts], dtype=torch.long)
