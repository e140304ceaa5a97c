"""Distance of the model's vectors to those of a teacher."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gemma4vec.machine.device import to_device
from gemma4vec.objective.matching import embedding_matching, listwise_matching, relational_matching
from gemma4vec.objective.matryoshka import matryoshka
from gemma4vec.recipe import terms
from gemma4vec.training.engine.task import ExtraParameter
from gemma4vec.training.terms.base import LossTerm, TeacherSettings, TermBatch, TermContext


class Matching(LossTerm):
    """The model's vectors approach a teacher's (EmbedDistill, arXiv:2301.12005; EmbeddingGemma, section 2.2).

    Reads the vectors of `texts` and the teacher's vectors of the same texts. Direct and through a projection, distances
    are summed over queries, positives and negatives; relational, similarities among all of them are compared; listwise,
    each query's distribution over the positives and negatives of all rows. Of Matryoshka prefixes a direct match is
    with the teacher's own prefix, a relational or listwise one with its whole vectors.
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
        """Direct: mean over the rows, summed over kinds of text. Relational: mean over pairs of texts. Listwise: over
        rows.
        """
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
        if settings.form == "listwise":
            return self._listwise(batch, pairs)
        projection_ED = None if self.projection is None else self.projection.parameter
        weights_N = batch.row_weights_N

        def distance(own_ND: Tensor, teacher_NE: Tensor) -> Tensor:
            # A row's hard negatives have the weight of the row.
            weights = None if weights_N is None else weights_N.repeat_interleave(len(own_ND) // len(weights_N))
            return embedding_matching(
                own_ND, teacher_NE, projection_ED, distance=settings.distance, row_weights_N=weights
            )

        return torch.stack([self.sum_over_prefixes(distance, [own, its.to(own)]) for own, its in pairs]).sum()

    def _listwise(self, batch: TermBatch, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Of the queries over all other texts; `pairs` has both models' vectors of `settings.texts`."""
        named = [name for name in self.settings.texts if batch.vectors.of(name) is not None]
        queries_ND, teacher_queries_NE = pairs[named.index("queries")]
        others = [pair for name, pair in zip(named, pairs, strict=True) if name != "queries"]
        candidates_MD, teacher_ME = (torch.cat(parts) for parts in zip(*others, strict=True))

        def divergence(queries_Nd: Tensor, candidates_Md: Tensor) -> Tensor:
            return listwise_matching(
                queries_Nd,
                candidates_Md,
                teacher_queries_NE,
                teacher_ME,
                temperature=self.context.temperature.now_or(None),
                teacher_temperature=self.settings.teacher_temperature or terms.LISTWISE_TEMPERATURE,
                row_weights_N=batch.row_weights_N,
            )

        return self.sum_over_prefixes(divergence, [queries_ND, candidates_MD])


def _orthogonal(rows: int, columns: int) -> Tensor:
    """A matrix with orthonormal rows or columns; the same one for every seed of the run."""
    generator = torch.Generator().manual_seed(0)
    return nn.init.orthogonal_(torch.empty(rows, columns), generator=generator)
