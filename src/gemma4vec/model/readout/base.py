"""What a readout is.

Shapes: T real tokens, N documents, D hidden size.
"""

from typing import ClassVar

from torch import Tensor, nn

from gemma4vec.model.packing import Layout


class Readout(nn.Module):
    """Turns the token states of documents into one vector each.

    A readout is one file with one subclass, and one line in `model/readout/__init__.py`.

    Attributes:
        name: what recipes call it.
        needs: what it asks of the parts before it: "eos" (an EOS token, exactly once, also after truncation).
        sentence_transformers: the pooling mode of the same meaning there, so that a saved model opens without us.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    sentence_transformers: ClassVar[str]

    def __init__(self, hidden_size: int, pool_prompt: bool = True):
        super().__init__()
        self.hidden_size = hidden_size
        self.pool_prompt = pool_prompt

    def pool(self, states_TD: Tensor, layout: Layout) -> Tensor:
        """Vectors `[N, D]` from the states `[T, D]` of the layout's documents, in the layout's order."""
        raise TypeError(f"{type(self).__name__} defines no pool()")
