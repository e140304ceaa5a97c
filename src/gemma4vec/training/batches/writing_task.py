"""What tasks have in common whose model writes a text after something else: the loss, and that of held-out texts.

What comes first is a vector as soft tokens (`vector_to_text`), or a query with titles (`suggestion`).

Shapes: M predicted tokens, V vocabulary, D hidden size.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.model.backbone.sampled_softmax import (
    SampledVocabulary,
    draw_vocabulary,
    drawing_probabilities,
    sampled_cross_entropy,
)
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import PackedBatch, padding_share
from gemma4vec.training.batches.text_batches import TextBatch
from gemma4vec.training.batches.text_task import TextTask
from gemma4vec.training.engine.task import HeldOutLoss, Loss

# Texts whose tokens are counted for the sampled softmax.
_COUNTED = 100_000
_BLOCK = 4096


@dataclass(frozen=True)
class WritingBatch:
    """Layouts of texts after what comes first. `texts` and `predicted` are of all processes.

    Attributes:
        layouts: the micro-batches of this process's share.
        places: for each layout `[M]`, places among its real tokens (as `PackedBatch.cells_T`) that predict.
        targets: for each layout `[M]`, the token to predict at each of these places.
        sampled: the tokens of the softmax; None: the whole vocabulary.
        rows: number of texts.
        predicted: number of tokens that all processes predict together.
        texts: the texts themselves.
    """

    layouts: list[PackedBatch]
    places: list[Tensor]
    targets: list[Tensor]
    sampled: SampledVocabulary | None
    rows: int
    predicted: int
    texts: TextBatch


Written = TypeVar("Written", bound=WritingBatch)


@dataclass(frozen=True, eq=False)
class WritingTask(TextTask[Written]):
    """A causal base that learns to write texts.

    Attributes:
        kept: texts that are never trained on.
        probabilities_V: each token's probability of being drawn for a softmax; None: all of them count.
    """

    kept: Sequence[str]
    probabilities_V: NDArray[np.float64] | None

    @property
    @abstractmethod
    def longest(self) -> int:
        """Most tokens that a text and what comes before it have."""

    @abstractmethod
    def states(self, built: EmbeddingModel, layout: PackedBatch, number: int, batch: Written) -> Tensor:
        """States of all real tokens of the batch's layout `number`."""

    @abstractmethod
    def kept_views(self) -> Mapping[str, Callable[[slice], Written]]:
        """Ways to lay out a part of the held-out texts, by name: first after what is their own, then after others'."""

    def loss(self, built: EmbeddingModel, batch: Written) -> Loss:
        """Mean cross-entropy of the texts' tokens and ends."""
        states_MD, targets_M = self._predicting_states(built, batch)
        if batch.sampled is not None:
            value = sampled_cross_entropy(self.head, states_MD, targets_M, batch.sampled)
        else:
            value = self.head.cross_entropy(states_MD, targets_M)
        return Loss(
            value * (len(targets_M) / batch.predicted),
            tokens=sum(layout.real_tokens for layout in batch.layouts),
            rows=batch.rows,
            padding_share=padding_share(batch.layouts),
        )

    def held_out(self, built: EmbeddingModel) -> HeldOutLoss | None:
        """The mean loss of texts that are never trained on, over the whole vocabulary, each after what is its own.

        Beside it: the loss of the same texts after what is another text's. A model that ignores what comes first has
        twice the same.
        """
        if not self.kept:
            return None
        training = built.encoder.training
        built.encoder.eval()
        try:
            found = {name: self._mean_loss(built, lay_out) for name, lay_out in self.kept_views().items()}
        finally:
            built.encoder.train(training)
        own, predicted = next(iter(found.values()))
        return HeldOutLoss(own, len(self.kept), predicted, {name: loss for name, (loss, _) in found.items()})

    def draw_tokens(self, targets: Sequence[Sequence[int]], generator: np.random.Generator) -> SampledVocabulary | None:
        """The tokens of a batch's softmax; None: the whole vocabulary."""
        if self.probabilities_V is None:
            return None
        return draw_vocabulary(self.probabilities_V, np.unique(np.concatenate(targets)), generator)

    def _predicting_states(self, built: EmbeddingModel, batch: Written) -> tuple[Tensor, Tensor]:
        """(states `[M, D]` that predict, tokens `[M]` to predict)."""
        found = []
        for number, (layout, places_M) in enumerate(zip(batch.layouts, batch.places, strict=True)):
            states_TD = self.states(built, layout, number, batch)
            found.append(states_TD.index_select(0, to_device(places_M, states_TD.device)))
        states_MD = torch.cat(found)
        return states_MD, to_device(torch.cat(batch.targets), states_MD.device)

    def _mean_loss(self, built: EmbeddingModel, lay_out: Callable[[slice], Written]) -> tuple[float, int]:
        """(mean loss over the tokens of the held-out texts, number of tokens)."""
        total, count = 0.0, 0
        step = max(1, self.stage.layout.tokens_per_forward // self.longest)
        for first in range(0, len(self.kept), step):
            batch = lay_out(slice(first, first + step))
            # Compiled layers have one graph with gradients and one without; compiling the second would take as long.
            with torch.set_grad_enabled(built.encoder.backbone.compiled):
                states_MD, targets_M = self._predicting_states(built, batch)
            with torch.no_grad():
                total += float(self.head.cross_entropy(states_MD.detach(), targets_M)) * len(targets_M)
            count += len(targets_M)
        return total / count, count


def token_probabilities(
    size: int | None,
    texts: Sequence[str],
    read: Callable[[list[str]], list[list[int]]],
    end_id: int,
    vocabulary: int,
) -> NDArray[np.float64] | None:
    """Each token's probability of being drawn for a softmax of about `size`, by its count in texts; None: all count.

    Args:
        size: of the softmax.
        texts: the data.
        read: texts to tokens.
        end_id: the token that ends a text.
        vocabulary: number of tokens.
    """
    if size is None or size >= vocabulary:
        return None
    counts_V = np.zeros(vocabulary, dtype=np.int64)
    counted = texts[:: max(1, len(texts) // _COUNTED)]
    for first in range(0, len(counted), _BLOCK):
        for ids in read(list(counted[first : first + _BLOCK])):
            np.add.at(counts_V, ids, 1)
    counts_V[end_id] += len(counted)
    return drawing_probabilities(counts_V, size)
