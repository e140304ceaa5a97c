"""A head that computes some tokens says how long the others would take, and gives them no gradient."""

from types import SimpleNamespace

import pytest
import torch

from gemma4vec.model.backbone.lm_head import LanguageModelHead, block_tokens
from gemma4vec.training.estimate import sampled_head
from gemma4vec.training.estimate.sampled_head import SampledHead, Skipped


@pytest.fixture
def head_weights() -> torch.Tensor:
    return torch.randn(50, 8, generator=torch.Generator().manual_seed(0))


def test_one_block_stands_for_all(head_weights: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(sampled_head, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    skipped = Skipped()
    head = SampledHead(head_weights, None, skipped)
    states_MD = torch.randn(18, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    targets_M = torch.arange(18)
    loss = head.cross_entropy(states_MD, targets_M, block=4)
    loss.backward()
    assert skipped.seconds == pytest.approx(3.0 * 4)  # a block took 3 seconds, four more are left
    torch.testing.assert_close(loss, LanguageModelHead(head_weights, None).cross_entropy(states_MD[:4], targets_M[:4]))
    assert states_MD.grad is not None
    assert states_MD.grad[:4].abs().sum(1).min() > 0 and not states_MD.grad[4:].any()
    head.cross_entropy(states_MD[:3], targets_M[:3], block=4)  # all of few tokens are computed
    assert skipped.seconds == pytest.approx(12.0)


def test_a_block_is_what_the_head_computes_at_a_time(head_weights: torch.Tensor) -> None:
    assert block_tokens(head_weights) == 2**24 // 50
    assert block_tokens(torch.empty(262_144, 8, device="meta")) == 64
