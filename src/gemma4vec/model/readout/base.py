"""The interface of readouts: how a text is prepared for the backbone, and how its token states become one vector.

Shapes: L layers, T real tokens, N documents, D hidden size of the base.
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
class BaseInfo:
    """Properties of the base that a readout may use.

    Attributes:
        hidden_size: D.
        layers: L, number of decoder layers.
        embedding_size: root mean square of the base's token embeddings as they enter the first layer.
        folder: where the base or the saved model was loaded from; a saved model contains its second encoder.
        input_size: width of a token embedding as it enters the first layer; None: D (only EmbeddingGemma 2 differs).
    """

    hidden_size: int
    layers: int
    embedding_size: float = 1.0
    folder: Path | None = None
    input_size: int | None = None


class Readout(nn.Module):
    """Turns the token states of documents into one vector each.

    A readout is one file with one subclass, its settings in `recipe/readouts.py`, and one line in
    `model/readout/__init__.py`; model/README.md walks through a new one. Its parameters are fp32 (float64 in a float64
    model), initialized from torch's global generator, and trained like every other parameter.

    Args:
        settings: its part of the recipe (`recipe.readouts`).
        base: properties of the base.

    Attributes:
        name: its name in recipes.
        needs: requirements: "eos" (exactly one EOS token, also after truncation), "all_layers" (states of all layers),
            "twice" (reads each text twice), "context" (a second, frozen encoder), "bidirectional" (meaningless with
            causal attention).
        last_token_only: whether it reads nothing but the state of each document's last token.
        reserved: number of tokens of the limit that the readout uses for itself.
        sentence_transformers: that library's pooling mode with the same meaning, with which a saved model opens without
            gemma4vec; None: there is none.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    last_token_only: ClassVar[bool] = False
    reserved: ClassVar[int] = 0
    sentence_transformers: ClassVar[str | None] = None

    def __init__(self, settings: Any, base: BaseInfo):
        super().__init__()
        self.settings = settings
        self.hidden_size = base.hidden_size
        self.pool_prompt = self.pools_prompt(settings)

    @classmethod
    def pools_prompt(cls, settings: Any) -> bool:
        """Whether the prompt's tokens are pooled. If not, the tokenizer must know where the prompt ends."""
        return bool(getattr(settings, "pool_prompt", True))

    @classmethod
    def width(cls, settings: Any, hidden_size: int) -> int:
        """Length of the pooled vectors on a base with D = `hidden_size`; by default D."""
        return hidden_size

    @property
    def dimension(self) -> int:
        """Length of the pooled vectors."""
        return self.width(self.settings, self.hidden_size)

    def prepare(
        self, tokens: Sequence[Tokens], texts: Sequence[Prompted], tokenizer: PreTrainedTokenizerFast
    ) -> list[Tokens]:
        """The tokens that the backbone reads of each text; by default the text's own.

        Args:
            tokens: tokens of each text with its prompt.
            texts: the same texts before tokenization.
            tokenizer: for tokens that the readout adds.
        """
        return list(tokens)

    def override_embeddings(self, layout: PackedBatch) -> EmbeddingOverrides | None:
        """Vectors that replace the input embeddings of some tokens; by default none."""
        return None

    def pool(self, states: Tensor, layout: PackedBatch) -> Tensor:
        """Pool the states of each document into one vector: `[N, dimension]`, in the layout's order.

        Args:
            states: states of the real tokens, document after document, in the base's dtype: `[T, D]`, or
                `[L + 1, T, D]` (input embeddings first) for a readout that needs all layers.
            layout: the documents' lengths, prompts and marks; each has at least one token.

        Raises:
            TypeError: a subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__} defines no pool()")

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
