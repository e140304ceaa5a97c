"""The triplet margin against torch's own two losses, and row by row."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.objective.triplet import TripletDistance, triplet_margin


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()


def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(one, other, dim=-1)


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.5])
@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_one_negative_is_torchs_loss_in_value_and_gradients(distance: TripletDistance, margin: float) -> None:
    query, near, far = unit(9, 5, seed=1), unit(9, 5, seed=2), unit(9, 1, 5, seed=3)
    found = triplet_margin(query, near, far, margin=margin, distance=distance)
    if distance == "l2":
        expected = functional.triplet_margin_loss(query, near, far[:, 0], margin=margin)
    else:
        expected = nn.TripletMarginWithDistanceLoss(distance_function=cosine_distance, margin=margin)(
            query, near, far[:, 0]
        )
    assert found.item() == pytest.approx(expected.item(), abs=1e-12) and found.item() > 0
    # torch's cosine divides by the lengths: the same gradient along the sphere.
    for ours, wanted, at in zip(
        torch.autograd.grad(found, [query, near, far]),
        torch.autograd.grad(expected, [query, near, far]),
        (query, near, far),
        strict=True,
    ):
        along = ours - (ours * at).sum(-1, keepdim=True) * at if distance == "cosine" else ours
        torch.testing.assert_close(along, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_several_negatives_are_the_mean_of_their_triplets_and_rows_weigh(distance: TripletDistance) -> None:
    query, near, far = unit(6, 5, seed=1), unit(6, 5, seed=2), unit(6, 3, 5, seed=3)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0, 1.0])
    expected = 0.0
    for n in range(6):
        for k in range(3):
            to_near, to_far = (
                1 - float(query[n] @ other) if distance == "cosine" else float((query[n] - other).norm())
                for other in (near[n], far[n, k])
            )
            expected += float(weights[n]) * max(0.0, to_near - to_far + 0.3) / 18
    found = triplet_margin(query, near, far, margin=0.3, distance=distance, row_weights_N=weights)
    assert found.item() == pytest.approx(expected, abs=1e-5)  # torch adds 1e-6 to each difference of l2
    assert triplet_margin(query, query, -far[:, :0].new_ones(6, 1, 5) * query[:, None]).item() == 0.0


def test_where_the_margin_is_kept_there_is_no_gradient() -> None:
    query = unit(3, 5, seed=1)
    found = triplet_margin(query, query.detach(), -query.detach()[:, None], margin=1.9)
    assert found.item() == 0.0 and torch.autograd.grad(found, query)[0].abs().max() == 0.0
    both = triplet_margin(query, query, query[:, None], margin=0.2, distance="l2")
    assert torch.autograd.grad(both, query)[0].isfinite().all()
