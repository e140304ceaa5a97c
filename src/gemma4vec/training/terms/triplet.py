"""The triplet margin loss."""

from typing import ClassVar

from torch import Tensor

from gemma4vec.objective.triplet import triplet_margin
from gemma4vec.recipe import terms
from gemma4vec.training.terms.base import LossTerm, TermBatch


class Triplet(LossTerm):
    """A row's positive is nearer than its own hard negatives, by a margin (Sentence-BERT, arXiv:1908.10084).

    Reads queries, positives `[N, D]` and hard negatives `[N, K, D]`. Example: `{kind: triplet, margin: 0.2}`.
    """

    kind: ClassVar[str] = "triplet"
    settings: terms.Triplet

    def value(self, batch: TermBatch) -> Tensor:
        """Mean over the rows of the mean over their hard negatives."""
        settings, vectors = self.settings, batch.vectors

        def loss(queries_Nd: Tensor, positives_Nd: Tensor, negatives_NKd: Tensor) -> Tensor:
            return triplet_margin(
                queries_Nd,
                positives_Nd,
                negatives_NKd,
                margin=settings.margin,
                distance=settings.distance,
                row_weights_N=batch.row_weights_N,
            )

        return self.sum_over_prefixes(loss, [vectors.queries_ND, vectors.positives_ND, vectors.negatives_NKD])
