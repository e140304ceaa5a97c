"""The spread-out regulariser against sentence-transformers', the double sum, and finite differences."""

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import GlobalOrthogonalRegularizationLoss
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.objective.gor import gor

SIZES = [(5, 8), (8, 5), (6, 6), (2, 3)]


def unit(n: int, dimensions: int, *, spread: float = 1.0) -> Tensor:
    """Random directions around a common one, so that similarities are high and no part of the loss is cut off."""
    generator = torch.Generator().manual_seed(n)
    vectors = 1.0 + spread * torch.randn(n, dimensions, generator=generator, dtype=torch.float64)
    return functional.normalize(vectors, dim=-1).requires_grad_()


@pytest.mark.parametrize(("n", "dimensions"), SIZES)
def test_second_moment_is_the_papers_double_sum(n: int, dimensions: int) -> None:
    vectors = unit(n, dimensions)
    pairs = [(vectors[i] @ vectors[j]) ** 2 for i in range(n) for j in range(n) if i != j]
    expected = torch.stack(pairs).sum() / (n * (n - 1))
    found = gor(vectors)
    assert (found - expected).item() == pytest.approx(0.0, abs=1e-12)
    ours, theirs = (torch.autograd.grad(loss, vectors)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "dimensions"), SIZES)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_both_forms_are_those_of_sentence_transformers(n: int, dimensions: int, spread: float) -> None:
    vectors = unit(n, dimensions, spread=spread)
    mean, excess = GlobalOrthogonalRegularizationLoss(nn.Identity()).compute_gor(vectors)  # type: ignore[arg-type]
    found = gor(vectors, "spread_out")
    assert (found - (mean + excess)).item() == pytest.approx(0.0, abs=1e-12)
    ours, theirs = (torch.autograd.grad(loss, vectors)[0] for loss in (found, mean + excess))
    ours = ours - (ours * vectors).sum(-1, keepdim=True) * vectors  # their cosine differentiates through the length
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    if excess > 0:  # EmbeddingGemma's has no threshold
        assert gor(vectors).item() == pytest.approx(excess.item() + 1 / dimensions, abs=1e-12)


@pytest.mark.parametrize("form", ["second_moment", "spread_out"])
@pytest.mark.parametrize(("n", "dimensions"), [(3, 5), (5, 3)])
def test_gradients_pass_finite_differences_and_order_does_not_matter(form: str, n: int, dimensions: int) -> None:
    vectors = unit(n, dimensions, spread=0.5)
    assert torch.autograd.gradcheck(lambda x: gor(x, form), vectors)  # type: ignore[arg-type]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert (gor(vectors, form) - gor(vectors[order], form)).item() == pytest.approx(0.0, abs=1e-14)  # type: ignore[arg-type]


def test_orthogonal_vectors_cost_nothing_and_equal_ones_push_nowhere() -> None:
    assert gor(torch.eye(4)).item() == 0.0 and gor(torch.eye(4), "spread_out").item() == 0.0
    same = unit(1, 5).detach().expand(4, 5).clone().requires_grad_()
    loss = gor(same)
    assert loss.item() == pytest.approx(1.0)
    gradient = torch.autograd.grad(loss, same)[0]
    along = (gradient * same).sum(-1, keepdim=True) * same
    torch.testing.assert_close(gradient, along, rtol=0, atol=1e-12)
    assert gor(unit(1, 5)).item() == pytest.approx(0.0, abs=1e-12)  # a batch of one
