"""Cross-entropy over a part of the vocabulary: the tokens of the batch, and others drawn at random.

The sum of a softmax's exponentials is estimated without bias (Horvitz and Thompson 1952): a drawn token counts
1 / its probability of being drawn, which is a log-q correction of its logit (Bengio and Senecal 2008; Jean et al.
2015, arXiv:1412.2007, section 3). Tokens of the batch always count, and once.

Shapes: M predicted tokens, V vocabulary, S tokens of the softmax.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.model.backbone.lm_head import LanguageModelHead, blockwise_cross_entropy

# Tokens are drawn by their count to this power (Mikolov et al. 2013, arXiv:1310.4546, section 2.2); unseen ones too.
_POWER, _UNSEEN = 0.75, 1.0


@dataclass(frozen=True)
class SampledVocabulary:
    """The tokens of one softmax.

    Attributes:
        tokens_S: their ids, ascending.
        correction_S: what is added to each logit: minus the log of its probability of being drawn; 0 where certain.
    """

    tokens_S: Tensor
    correction_S: Tensor

    def places(self, targets_M: Tensor) -> Tensor:
        """Where tokens are among `tokens_S`; all of them must be."""
        return torch.searchsorted(self.tokens_S, targets_M)


def drawing_probabilities(counts_V: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Each token's probability of being drawn, so that `size` are on average: by counts of training, at most 1."""
    if size >= len(counts_V):
        return np.ones(len(counts_V))
    weights_V = (counts_V + _UNSEEN) ** _POWER
    found_V = size * weights_V / weights_V.sum()
    while (found_V > 1.0 + 1e-12).any():  # what is certain leaves the rest fewer draws
        certain_V = found_V >= 1.0
        rest = weights_V[~certain_V]
        found_V[certain_V] = 1.0
        found_V[~certain_V] = (size - certain_V.sum()) * rest / rest.sum()
    return found_V


def draw_vocabulary(
    probabilities_V: NDArray[np.float64], targets: NDArray[np.int64], generator: np.random.Generator
) -> SampledVocabulary:
    """The targets, and every other token with its probability."""
    drawn_V = generator.random(len(probabilities_V)) < probabilities_V
    drawn_V[targets] = True
    tokens = np.flatnonzero(drawn_V)
    correction = -np.log(probabilities_V[tokens])
    correction[np.isin(tokens, targets)] = 0.0
    return SampledVocabulary(torch.from_numpy(tokens), torch.from_numpy(correction))


def sampled_cross_entropy(
    head: LanguageModelHead, states_MD: Tensor, targets_M: Tensor, sampled: SampledVocabulary
) -> Tensor:
    """Mean cross-entropy of the target tokens, a scalar, over the sampled tokens alone."""
    tokens_S = sampled.tokens_S.to(states_MD.device)
    correction_S = sampled.correction_S.to(states_MD.device)
    places_M = torch.searchsorted(tokens_S, targets_M)
    weight_SD = head.weight_VD.index_select(0, tokens_S)
    return blockwise_cross_entropy(states_MD, weight_SD, places_M, head.softcap, correction_S)
