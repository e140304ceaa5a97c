"""False negatives in a batch: candidates whose text, by its hash, is a known answer to the query.

Masks are computed for a block of rows at a time.

Shapes: N rows, K hard negatives a row, M candidates, V distinct texts, R rows of a block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gemma4vec.machine.device import to_device


@dataclass(frozen=True)
class TextHashes:
    """Hashes of a batch's texts, int64: equal texts have equal hashes.

    Keep them on the CPU: distinct texts are then found there, without a GPU synchronization.

    Attributes:
        queries_N: one hash for each query.
        positives_N: one hash for each row's positive.
        negatives_NK: one hash for each hard negative; K may be 0.
    """

    queries_N: Tensor
    positives_N: Tensor
    negatives_NK: Tensor

    def to(self, device: torch.device) -> "TextHashes":
        """Copy the hashes to another device."""
        return TextHashes(
            to_device(self.queries_N, device), to_device(self.positives_N, device), to_device(self.negatives_NK, device)
        )


class FalseNegatives:
    """The candidates that are no negatives of a row: its own anchor's text, and every positive of an equal anchor.

    With queries as anchors and positives as `positives_N`, the masks mark what EmbeddingGemma's indicator leaves out
    (arXiv:2509.20354, section 2.2) and all known answers of an equal query. With the two exchanged, they mark the
    queries that are no negatives of a passage.

    Args:
        anchors_N: hash of each row's anchor, the text that the row compares with the candidates.
        positives_N: hash of each row's positive.
        candidates_M: hash of each candidate.
        device: where masks are computed; the hashes may be on the CPU.
    """

    def __init__(self, anchors_N: Tensor, positives_N: Tensor, candidates_M: Tensor, device: torch.device):
        hashes = torch.cat([anchors_N, positives_N, candidates_M])
        distinct, ids = torch.unique(hashes, return_inverse=True)
        self.num_texts = len(distinct)
        sizes = [len(anchors_N), len(positives_N), len(candidates_M)]
        self.anchors_N, self.positives_N, self.candidates_M = to_device(ids, device).split(sizes)

    def text_mask(self, start: int, stop: int) -> Tensor:
        """Bool `[R, V]`: true for each distinct text that is no negative of rows `start` to `stop`."""
        anchors_R = self.anchors_N[start:stop]
        same_RN = anchors_R[:, None] == self.anchors_N[None, :]
        # Count occurrences; nonzero() would force a GPU sync.
        counts_RV = torch.zeros(len(anchors_R), self.num_texts, dtype=torch.int32, device=anchors_R.device)
        counts_RV.index_add_(1, self.positives_N, same_RN.int())
        return (counts_RV > 0).scatter_(1, anchors_R[:, None], True)

    def mask(self, start: int, stop: int) -> Tensor:
        """Bool `[R, M]`: true for each candidate that is no negative of rows `start` to `stop`."""
        return self.text_mask(start, stop).index_select(1, self.candidates_M)
