"""The spread-out regularizer."""

from typing import ClassVar

from torch import Tensor

from gemma4vec.objective.gor import gor
from gemma4vec.recipe import terms
from gemma4vec.training.terms.base import LossTerm, TermBatch


class Gor(LossTerm):
    """Global orthogonal regularization of queries plus positives (Zhang et al. 2017, arXiv:1708.06320).

    Reads queries and positives `[N, D]`. It is a mean over pairs, so rows have no weights of their own.
    Example: `{kind: gor, form: second_moment}`.
    """

    kind: ClassVar[str] = "gor"
    settings: terms.Gor

    def value(self, batch: TermBatch) -> Tensor:
        """The sum of both regularizers."""

        def loss(queries_Nd: Tensor, positives_Nd: Tensor) -> Tensor:
            return gor(queries_Nd, self.settings.form) + gor(positives_Nd, self.settings.form)

        return self.sum_over_prefixes(loss, [batch.vectors.queries_ND, batch.vectors.positives_ND])
