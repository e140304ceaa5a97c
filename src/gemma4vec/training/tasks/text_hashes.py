"""64-bit hashes of a batch's texts: a positive that equals another row's is no negative of that row."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key


def text_hashes(texts: Sequence[str] | Sequence[Document]) -> Tensor:
    """Hashes of texts: `int64[N]`."""
    return torch.tensor([text_key(text) for text in texts], dtype=torch.long)
