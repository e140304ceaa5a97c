"""Distillation of a reranker's scores as a distribution over a row's candidates."""

from typing import ClassVar

from torch import Tensor

from gemma4vec.objective.matching import score_distillation
from gemma4vec.recipe import terms
from gemma4vec.training.terms.scored import ScoredTerm


class Kl(ScoredTerm):
    """KL divergence from the teacher's softmax over a row's candidates (Lin et al. 2020, arXiv:2010.11386).

    See `ScoredTerm` for what it reads. Example: `{kind: kl, temperature: 0.05, teacher_temperature: 1.0}`.
    """

    kind: ClassVar[str] = "kl"
    settings: terms.Kl

    def distance(self, student_NC: Tensor, teacher_NC: Tensor, row_weights_N: Tensor | None) -> Tensor:
        """The divergence, which is not multiplied by the squared temperature: InfoNCE is not either."""
        return score_distillation(
            student_NC,
            teacher_NC,
            temperature=self.context.temperature.now_or(self.settings.temperature),
            teacher_temperature=self.settings.teacher_temperature,
            scaled=False,
            row_weights_N=row_weights_N,
        )
