"""Contrast between two dropout views of a text."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from gemma4vec.objective.nce import self_contrast
from gemma4vec.recipe import terms
from gemma4vec.training.terms.base import LossTerm, TermBatch, Texts


class SelfContrast(LossTerm):
    """Two dropout views of one text find each other, both ways (SimCSE, Gao et al. 2021, arXiv:2104.08821).

    Reads the vectors of `texts` and their second view, both `[N, D]`. The second view costs another forward pass of
    these texts, and the model must have dropout. Example: `{kind: self_contrast, texts: positives}`.
    """

    kind: ClassVar[str] = "self_contrast"
    settings: terms.SelfContrast

    @classmethod
    def second_views(cls, settings: terms.Term) -> Sequence[Texts]:
        """The texts that the recipe names."""
        assert isinstance(settings, terms.SelfContrast)
        return (settings.texts,)

    def value(self, batch: TermBatch) -> Tensor:
        """Mean over the rows."""
        texts, hashes = self.settings.texts, batch.hashes

        def loss(first_Nd: Tensor, second_Nd: Tensor) -> Tensor:
            return self_contrast(
                first_Nd,
                second_Nd,
                temperature=self.context.temperature.now_or(self.settings.temperature),
                text_hashes_N=hashes.queries_N if texts == "queries" else hashes.positives_N,
                row_weights_N=batch.row_weights_N,
            )

        return self.sum_over_prefixes(loss, [batch.vectors.of(texts), batch.vectors.views[texts]])
