"""Documents of several lengths, longer and shorter than the tiny models' windows."""

import torch

from gemma4vec.model.packing.packed_batch import Tokens


def documents() -> list[Tokens]:
    """Seven, always the same, of tokens that are no special ones."""
    generator = torch.Generator().manual_seed(0)
    return [Tokens(torch.randint(4, 390, (n,), generator=generator).tolist()) for n in (9, 7, 16, 12, 3, 8, 5)]
