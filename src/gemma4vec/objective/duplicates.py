"""Which candidates are known to be no negatives, by hash of their text, a block of rows at a time.

Shapes: N rows, K hard negatives a row, M candidates, V distinct texts, R rows of a block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Keys:
    """Hashes of a batch's texts (64-bit integers): equal texts have equal keys."""

    queries_N: Tensor
    positives_N: Tensor
    negatives_NK: Tensor

    def to(self, device: torch.device) -> "Keys":
        """The same on another device."""
        return Keys(self.queries_N.to(device), self.positives_N.to(device), self.negatives_NK.to(device))


class Duplicates:
    """For row n: texts equal to its own `asked`, and to an `answer` of any row that asks the same.

    With queries as asked and positives as answers these are the passages that are no negatives of a query: what
    EmbeddingGemma's indicator leaves out (arXiv:2509.20354, section 2.2), and all known answers of an equal query. With
    the two exchanged, they are the queries that are no negatives of a passage.
    """

    def __init__(self, asked_N: Tensor, answers_N: Tensor, candidates_M: Tensor):
        every = torch.cat([asked_N, answers_N, candidates_M])
        distinct, ids = torch.unique(every, return_inverse=True)
        self.texts = len(distinct)
        self.asked_N, self.answers_N, self.candidates_M = ids.split([len(asked_N), len(answers_N), len(candidates_M)])

    def known(self, start: int, stop: int) -> Tensor:
        """`[R, V]`, true for each text that is no negative of rows `start` to `stop`."""
        asked_R = self.asked_N[start:stop]
        known_RV = torch.zeros(len(asked_R), self.texts, dtype=torch.bool, device=asked_R.device)
        rows, others = (asked_R[:, None] == self.asked_N[None, :]).nonzero(as_tuple=True)
        known_RV[rows, self.answers_N[others]] = True
        known_RV[torch.arange(len(asked_R), device=asked_R.device), asked_R] = True
        return known_RV

    def mask(self, start: int, stop: int) -> Tensor:
        """`[R, M]`, true for each candidate that is no negative of rows `start` to `stop`."""
        return self.known(start, stop).index_select(1, self.candidates_M)
