"""Distance of the model's vectors to those of a teacher."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gemma4vec.machine.device import to_device
from gemma4vec.objective.matching import embedding_matching, relational_matching
from gemma4vec.objective.matryoshka import matryoshka
from gemma4vec.recipe import terms
from gemma4vec.training.engine.task import ExtraParameter
from gemma4vec.training.terms.base import LossTerm, TeacherSettings, TermBatch, TermContext


class Matching(LossTerm):
    """The model's vectors approach a teacher's (EmbedDistill, arXiv:2301.12005; EmbeddingGemma, section 2.2).

    Reads the vectors of `texts` and the teacher's vectors of the same texts. Direct and through a projection, distances
    are summed over queries, positives and negatives; relational, similarities among all of them are compared. Of
    Matryoshka prefixes a direct match is with the teacher's own prefix, a relational one with its whole vectors.
    Example: `{kind: matching, teacher: "bundled:all-minilm-l6-v2", form: projection}`.
    """

    kind: ClassVar[str] = "matching"
    settings: terms.Matching

    def __init__(self, settings: terms.Matching, context: TermContext):
        super().__init__(settings, context)
        self.projection: ExtraParameter | None = None
        if settings.form == "projection":
            assert context.teacher_dimension is not None
            start_ED = _orthogonal(context.teacher_dimension, context.dimension).to(context.device)
            self.projection = ExtraParameter(nn.Parameter(start_ED), settings.projection_learning_rate)

    @classmethod
    def teacher(cls, settings: terms.Term) -> TeacherSettings | None:
        """A model, or a file of vectors."""
        assert isinstance(settings, terms.Matching)
        return TeacherSettings(settings.teacher, settings.vectors, settings.texts, settings.form == "direct")

    def extra_parameters(self) -> Mapping[str, ExtraParameter]:
        """The projection from D to E dimensions, if it has one."""
        return {} if self.projection is None else {"projection": self.projection}

    def value(self, batch: TermBatch) -> Tensor:
        """Direct: mean over the rows, summed over kinds of text. Relational: mean over pairs of texts."""
        settings, device = self.settings, batch.vectors.queries_ND.device
        pairs = [
            (own, to_device(batch.teacher[texts], device))
            for texts in settings.texts
            if (own := batch.vectors.of(texts)) is not None
        ]
        if settings.form == "relational":
            student_ND, teacher_NE = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            lengths = settings.matryoshka or (student_ND.shape[1],)
            return matryoshka(
                lambda own: relational_matching(own, teacher_NE), [student_ND], lengths, settings.matryoshka_weights
            )
        projection_ED = None if self.projection is None else self.projection.parameter
        weights_N = batch.row_weights_N

        def distance(own_ND: Tensor, teacher_NE: Tensor) -> Tensor:
            # A row's hard negatives have the weight of the row.
            weights = None if weights_N is None else weights_N.repeat_interleave(len(own_ND) // len(weights_N))
            return embedding_matching(
                own_ND, teacher_NE, projection_ED, distance=settings.distance, row_weights_N=weights
            )

        return torch.stack([self.sum_over_prefixes(distance, [own, its.to(own)]) for own, its in pairs]).sum()


def _orthogonal(rows: int, columns: int) -> Tensor:
    """A matrix with orthonormal rows or columns; the same one for every seed of the run."""
    generator = torch.Generator().manual_seed(0)
    return nn.init.orthogonal_(torch.empty(rows, columns), generator=generator)
