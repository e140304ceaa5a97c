"""A language-model head that computes some tokens of a step and adds up the time of the others.

A head computes tokens in blocks of one size, one after the other (`model.backbone.lm_head`). So the time of all is that
of some, times their number; memory and what is kept for the backward do not depend on it. With a vocabulary of 262,144
all tokens would take nine tenths of a measured step.
"""

import math
import time
from dataclasses import dataclass, field

from torch import Tensor

from gemma4vec.model.backbone.lm_head import LanguageModelHead, block_tokens


@dataclass
class Skipped:
    """Seconds that the tokens which were not computed would have taken."""

    seconds: float = 0.0


@dataclass(frozen=True)
class SampledHead(LanguageModelHead):
    """The head of a model that is measured on a CPU; its loss is that of the computed tokens.

    Attributes:
        skipped: where it adds seconds.
    """

    skipped: Skipped = field(default_factory=Skipped)

    def cross_entropy(self, states_MD: Tensor, targets_M: Tensor, block: int | None = None) -> Tensor:
        """Mean cross-entropy of the first block; the gradient of the other states is zero."""
        size = block or block_tokens(self.weight_VD)
        started = time.perf_counter()
        loss = super().cross_entropy(states_MD[:size], targets_M[:size], block)
        taken = time.perf_counter() - started
        # Whole blocks count: the last one reads the matrix too, however few its tokens.
        self.skipped.seconds += taken * max(0, math.ceil(len(targets_M) / size) - 1)
        return loss
