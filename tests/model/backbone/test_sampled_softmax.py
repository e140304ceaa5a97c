"""Sampled softmax: exact where all tokens are drawn, its sum without bias, and its gradients those of autograd."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.backbone.sampled_softmax import (
    SampledVocabulary,
    draw_vocabulary,
    drawing_probabilities,
    sampled_cross_entropy,
)


def head_of(vocabulary: int, width: int, softcap: float | None) -> LanguageModelHead:
    generator = torch.Generator().manual_seed(3)
    weight_VD = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64).requires_grad_()
    return LanguageModelHead(weight_VD, softcap)


def states(count: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_with_all_tokens_drawn_it_is_the_whole_softmax(softcap: float | None) -> None:
    head, states_MD, targets_M = head_of(50, 8, softcap), states(7, 8), torch.tensor([3, 9, 9, 0, 49, 17, 3])
    probabilities_V = drawing_probabilities(np.arange(50), size=50)
    sampled = draw_vocabulary(probabilities_V, targets_M.unique().numpy(), np.random.default_rng(0))
    assert sampled.tokens_S.tolist() == list(range(50)) and not sampled.correction_S.any()
    found = sampled_cross_entropy(head, states_MD, targets_M, sampled)
    expected = functional.cross_entropy(head.logits(states_MD), targets_M)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    wanted = [states_MD, head.weight_VD]
    for one, other in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_part_of_the_vocabulary_against_autograd(softcap: float | None) -> None:
    head, states_MD, targets_M = head_of(50, 8, softcap), states(5, 8), torch.tensor([3, 9, 9, 40, 17])
    probabilities_V = drawing_probabilities(np.arange(50), size=12)
    sampled = draw_vocabulary(probabilities_V, targets_M.unique().numpy(), np.random.default_rng(1))
    kept = sampled.tokens_S
    assert 4 < len(kept) < 30 and set(targets_M.tolist()) <= set(kept.tolist())
    found = sampled_cross_entropy(head, states_MD, targets_M, sampled)
    logits = head.logits(states_MD)
    own = torch.isin(torch.arange(50), targets_M)
    weights_V = torch.where(own, 1.0, 1.0 / torch.from_numpy(probabilities_V))  # a drawn token stands for 1 / p tokens
    total_M = (weights_V * logits.exp())[:, kept].sum(dim=1)
    expected = (total_M.log() - logits[torch.arange(5), targets_M]).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    wanted = [states_MD, head.weight_VD]
    for one, other in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_sum_of_exponentials_has_no_bias() -> None:
    """The mean over every possible draw, weighted by its probability, is the whole sum."""
    logits_V = np.random.default_rng(0).standard_normal(7)
    probabilities_V = drawing_probabilities(np.array([9, 0, 3, 1, 0, 5, 2]), size=3)
    assert probabilities_V.sum() == pytest.approx(3) and (probabilities_V <= 1).all() and len(set(probabilities_V)) > 4

    class Scripted:
        """A generator whose numbers decide which tokens are drawn."""

        def __init__(self, drawn: tuple[bool, ...]):
            self.drawn = drawn

        def random(self, size: int) -> np.ndarray:
            assert size == len(self.drawn)
            return np.where(self.drawn, 0.0, 1.0)

    mean = 0.0
    targets = np.array([2, 4])
    others = np.setdiff1d(np.arange(7), targets)
    for drawn in product([False, True], repeat=7):
        chance = np.where(drawn, probabilities_V, 1 - probabilities_V)[others].prod()
        if not np.array(drawn)[targets].any():  # targets are there whatever was drawn: count each case once
            found: SampledVocabulary = draw_vocabulary(probabilities_V, targets, Scripted(drawn))  # type: ignore[arg-type]
            tokens, correction = found.tokens_S.numpy(), found.correction_S.numpy()
            mean += chance * np.exp(logits_V[tokens] + correction).sum()
    assert mean == pytest.approx(np.exp(logits_V).sum(), rel=1e-12)


def test_probabilities_follow_counts_and_stay_below_one() -> None:
    found = drawing_probabilities(np.array([10**9, 10**6, 0, 0, 10, 0]), size=3)
    assert found[0] == found[1] == 1.0 and found.sum() == pytest.approx(3) and found[2] == found[3] < found[4] < 1
