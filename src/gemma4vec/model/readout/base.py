"""What a readout is: what happens to a text before the backbone, and to its token states after it.

Shapes: L layers, T real tokens, N documents, K replaced cells, D hidden size of the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from gemma4vec.model.packing.embedding_overrides import EmbeddingOverrides
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens
from gemma4vec.text.prompts import Prompted


@dataclass(frozen=True)
class Base:
    """What a readout has to know of the base that it stands on.

    Attributes:
        hidden_size: D.
        layers: L, number of decoder layers.
        input_size: width of a token embedding as it enters the first layer; None: D (only EmbeddingGemma 2 differs).
        embedding_size: root mean square of the base's token embeddings as they enter the first layer.
        folder: where the base or the saved model was loaded from; a saved model brings its second encoder along.
    """

    hidden_size: int
    layers: int
    embedding_size: float = 1.0
    folder: Path | None = None
    input_size: int | None = None


class Readout(nn.Module):
    """Turns the token states of documents into one vector each.

    A readout is one file with one subclass, its settings in `recipe/readouts.py`, and one line in
    `model/readout/__init__.py`. Its parameters are fp32 (float64 in a float64 model), initialised from torch's global
    generator, and trained like every other parameter.

    Attributes:
        name: what recipes call it.
        needs: what it asks of the parts around it: "eos" (an EOS token, exactly once, also after truncation),
            "all_layers" (states of all layers), "twice" (reads each text twice), "context" (a second, frozen encoder),
            "bidirectional" (says nothing of a text that is read causally).
        only_ends: whether it reads the state of each document's last token and nothing else.
        reserved: tokens of the limit that the readout takes for itself.
        sentence_transformers: the pooling mode of the same meaning there, so that a saved model opens without us; None
            where there is none.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    only_ends: ClassVar[bool] = False
    reserved: ClassVar[int] = 0
    sentence_transformers: ClassVar[str | None] = None

    def __init__(self, settings: Any, base: Base):
        super().__init__()
        self.settings = settings
        self.hidden_size = base.hidden_size
        self.pool_prompt = self.pools_prompt(settings)

    @classmethod
    def pools_prompt(cls, settings: Any) -> bool:
        """Whether the prompt's tokens are part of what is pooled; where not, it matters at which token it ends."""
        return bool(getattr(settings, "pool_prompt", True))

    @classmethod
    def width(cls, settings: Any, hidden_size: int) -> int:
        """Length of the pooled vectors on a base whose states are D = `hidden_size` wide; by default D."""
        return hidden_size

    @property
    def dimension(self) -> int:
        """Length of the pooled vectors."""
        return self.width(self.settings, self.hidden_size)

    def prepare(
        self, tokens: Sequence[Tokens], texts: Sequence[Prompted], tokenizer: PreTrainedTokenizerFast
    ) -> list[Tokens]:
        """What the backbone reads of each text; by default its tokens as they are."""
        return list(tokens)

    def replaced(self, layout: PackedBatch) -> EmbeddingOverrides | None:
        """Vectors that stand in for the input embeddings of some tokens; by default none."""
        return None

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        """Vectors `[N, dimension]`, in the layout's order, of the states of the layout's documents.

        `states` are `[T, D]`, or `[L + 1, T, D]` (input embeddings first) for a readout that needs all layers.
        """
        raise TypeError(f"{type(self).__name__} defines no pool()")

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
