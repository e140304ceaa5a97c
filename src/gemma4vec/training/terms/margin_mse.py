"""Distillation of a reranker's margins between a row's positive and its hard negatives."""

from typing import ClassVar

from torch import Tensor

from gemma4vec.objective.matching import margin_mse
from gemma4vec.recipe import terms
from gemma4vec.training.terms.scored import ScoredTerm


class MarginMse(ScoredTerm):
    """Mean squared difference of margins (Hofstätter et al. 2020, arXiv:2010.02666).

    See `ScoredTerm` for what it reads. Example: `{kind: margin_mse, teacher_scale: 0.05}`.
    """

    kind: ClassVar[str] = "margin_mse"
    settings: terms.MarginMse

    def distance(self, student_NC: Tensor, teacher_NC: Tensor, row_weights_N: Tensor | None) -> Tensor:
        """Mean over the rows of the mean over their hard negatives."""
        return margin_mse(student_NC, teacher_NC * self.settings.teacher_scale, row_weights_N=row_weights_N)
