"""Which candidates are known to be no negatives, by hash of their text, a block of rows at a time.

Shapes: N rows, K hard negatives a row, M candidates, V distinct texts, R rows of a block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemma4vec.machine.transfer import to_device


@dataclass(frozen=True)
class TextHashes:
    """Hashes of a batch's texts (64-bit integers): equal texts have equal keys.

    Left on the CPU, what is known of them is counted there, and no GPU need be waited for.
    """

    queries_N: Tensor
    positives_N: Tensor
    negatives_NK: Tensor

    def to(self, device: torch.device) -> "TextHashes":
        """The same on another device."""
        return TextHashes(
            to_device(self.queries_N, device), to_device(self.positives_N, device), to_device(self.negatives_NK, device)
        )


class FalseNegatives:
    """For row n: texts equal to its own `asked`, and to an `answer` of any row that asks the same.

    With queries as asked and positives as answers these are the passages that are no negatives of a query: what
    EmbeddingGemma's indicator leaves out (arXiv:2509.20354, section 2.2), and all known answers of an equal query. With
    the two exchanged, they are the queries that are no negatives of a passage. Masks are made on `device`.
    """

    def __init__(self, asked_N: Tensor, answers_N: Tensor, candidates_M: Tensor, device: torch.device):
        every = torch.cat([asked_N, answers_N, candidates_M])
        distinct, ids = torch.unique(every, return_inverse=True)
        self.texts = len(distinct)
        parts = to_device(ids, device).split([len(asked_N), len(answers_N), len(candidates_M)])
        self.asked_N, self.answers_N, self.candidates_M = parts

    def known(self, start: int, stop: int) -> Tensor:
        """`[R, V]`, true for each text that is no negative of rows `start` to `stop`."""
        asked_R = self.asked_N[start:stop]
        same_RN = asked_R[:, None] == self.asked_N[None, :]
        # Where it stands how often; for nonzero() a GPU would have to be waited for.
        found_RV = torch.zeros(len(asked_R), self.texts, dtype=torch.int32, device=asked_R.device)
        found_RV.index_add_(1, self.answers_N, same_RN.int())
        return (found_RV > 0).scatter_(1, asked_R[:, None], True)

    def mask(self, start: int, stop: int) -> Tensor:
        """`[R, M]`, true for each candidate that is no negative of rows `start` to `stop`."""
        return self.known(start, stop).index_select(1, self.candidates_M)
