"""InfoNCE with in-batch and hard negatives."""

from typing import ClassVar

from torch import Tensor

from gemma4vec.objective.nce import nce
from gemma4vec.recipe import terms
from gemma4vec.training.terms.base import LossTerm, TermBatch


class Nce(LossTerm):
    """InfoNCE as in EmbeddingGemma (arXiv:2509.20354, section 2.2).

    Reads queries and positives `[N, D]`, hard negatives `[N, K, D]` where rows have them, and the texts' hashes, which
    keep equal texts from being negatives of each other. Example: `{kind: nce, matryoshka: [768, 128]}`.
    """

    kind: ClassVar[str] = "nce"
    settings: terms.Nce

    def value(self, batch: TermBatch) -> Tensor:
        """Mean over the rows."""
        settings, task = self.settings, self.context.task

        def loss(queries_Nd: Tensor, positives_Nd: Tensor, negatives_NKd: Tensor | None) -> Tensor:
            return nce(
                queries_Nd,
                positives_Nd,
                negatives_NKd,
                temperature=self.context.temperature.now_or(settings.temperature),
                share_hard_negatives=settings.shares(task.share_hard_negatives),
                hardness=settings.hardness or 0.0,  # a loaded recipe never leaves it open
                query_query=settings.query_query,
                passage_passage=settings.passage_passage,
                symmetric=settings.symmetric,
                false_negative_margin=settings.false_negative_margin,
                decoupled=settings.decoupled,
                text_hashes=batch.hashes,
                row_weights_N=batch.row_weights_N,
            )

        vectors = batch.vectors
        return self.sum_over_prefixes(loss, [vectors.queries_ND, vectors.positives_ND, vectors.negatives_NKD])
