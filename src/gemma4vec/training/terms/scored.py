"""What terms share that learn from a teacher's scores of a row's candidates."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from gemma4vec.machine.device import to_device
from gemma4vec.objective.matching import score_candidates
from gemma4vec.training.terms.base import LossTerm, TermBatch


class ScoredTerm(LossTerm):
    """A distance between the model's and a teacher's scores of each row's positive and hard negatives.

    Reads queries, positives `[N, D]`, hard negatives `[N, K, D]` and the rows' scores `[N, C]`. Rows without scores do
    not count; a batch without any has the value 0.
    """

    reads_scores: ClassVar[bool] = True

    @abstractmethod
    def distance(self, student_NC: Tensor, teacher_NC: Tensor, row_weights_N: Tensor | None) -> Tensor:
        """The weighted mean distance over rows: a scalar."""

    def value(self, batch: TermBatch) -> Tensor:
        """Mean over the rows that have scores."""
        vectors, weights_N = batch.vectors, batch.row_weights_N
        if batch.scores_NC is None or vectors.negatives_NKD is None:
            return vectors.queries_ND.new_zeros(())
        device = vectors.queries_ND.device
        teacher_NC = to_device(batch.scores_NC, device).to(vectors.queries_ND)
        missing_N = batch.scores_NC.isnan().any(1)
        if missing_N.any():
            weights_N = torch.ones_like(teacher_NC[:, 0]) if weights_N is None else weights_N
            weights_N = weights_N.masked_fill(to_device(missing_N, device), 0.0)
            teacher_NC = teacher_NC.nan_to_num()

        def loss(queries_Nd: Tensor, positives_Nd: Tensor, negatives_NKd: Tensor) -> Tensor:
            return self.distance(score_candidates(queries_Nd, positives_Nd, negatives_NKd), teacher_NC, weights_N)

        return self.sum_over_prefixes(loss, [vectors.queries_ND, vectors.positives_ND, vectors.negatives_NKD])
