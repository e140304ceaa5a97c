"""InfoNCE against sentence-transformers' loss, the plain formula, and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.objective.nce import false_negative_mask, info_nce


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1).requires_grad_()


class GivenEmbeddings(nn.Module):
    """Stands where the loss expects a model: gives the embeddings it is handed."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equals_sentence_transformers_in_value_and_gradient(k: int, temperature: float) -> None:
    queries, positives = unit(6, 5, seed=0), unit(6, 5, seed=1)
    negatives = unit(6, k, 5, seed=2) if k else None
    ours = info_nce(queries, positives, negatives, temperature=temperature)
    inputs = [queries, positives, *([negatives] if negatives is not None else [])]
    our_gradients = torch.autograd.grad(ours, inputs)
    theirs_of = MultipleNegativesRankingLoss(GivenEmbeddings(), scale=1 / temperature)  # type: ignore[arg-type]
    columns = [queries, positives, *(negatives[:, i] for i in range(k))] if negatives is not None else inputs
    theirs = theirs_of([{"vectors": column} for column in columns], torch.empty(0))
    assert abs((ours - theirs).item()) < 1e-6
    # Their cosine differentiates through the normalisation, which for unit vectors leaves the part across the vector.
    for vector, ours_to, theirs_to in zip(inputs, our_gradients, torch.autograd.grad(theirs, inputs), strict=True):
        across = ours_to - (ours_to * vector).sum(-1, keepdim=True) * vector
        torch.testing.assert_close(across, theirs_to, rtol=0, atol=1e-6)


def plain(
    queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float, share: bool, mask: Tensor
) -> float:
    """van den Oord et al. 2018, eq. 4, one query after the other."""
    queries, positives, negatives = queries.detach(), positives.detach(), negatives.detach()
    n, k = negatives.shape[:2]
    candidates = [positives[i] for i in range(n)] + [negatives[i, j] for i in range(n) for j in range(k)]
    total = 0.0
    for i in range(n):
        terms = []
        for c, candidate in enumerate(candidates):
            foreign = c >= n and (c - n) // k != i
            if c != i and (bool(mask[i, c]) or (foreign and not share)):
                continue
            terms.append(math.exp(float(queries[i] @ candidate) / temperature))
        total -= math.log(math.exp(float(queries[i] @ positives[i]) / temperature) / sum(terms))
    return total / n


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_plain_formula(share: bool, seed: int) -> None:
    queries, positives, negatives = unit(5, 4, seed=seed), unit(5, 4, seed=seed + 9), unit(5, 2, 4, seed=seed + 19)
    mask = torch.rand(5, 15, generator=torch.Generator().manual_seed(seed)) < 0.3
    found = info_nce(queries, positives, negatives, temperature=0.2, share_hard_negatives=share, false_negative_NM=mask)
    assert found.item() == pytest.approx(plain(queries, positives, negatives, 0.2, share, mask), abs=1e-12)


@pytest.mark.parametrize("share", [True, False])
def test_gradients_pass_finite_differences(share: bool) -> None:
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, 1] = mask[2, 4] = True

    def loss(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return info_nce(
            queries, positives, negatives, temperature=0.3, share_hard_negatives=share, false_negative_NM=mask
        )

    assert torch.autograd.gradcheck(loss, (unit(3, 4, seed=1), unit(3, 4, seed=2), unit(3, 2, 4, seed=3)))


def test_the_order_of_rows_does_not_matter() -> None:
    queries, positives, negatives = unit(7, 4, seed=1), unit(7, 4, seed=2), unit(7, 2, 4, seed=3)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    for share in (True, False):
        plainly = info_nce(queries, positives, negatives, temperature=0.1, share_hard_negatives=share)
        shuffled = info_nce(
            queries[order], positives[order], negatives[order], temperature=0.1, share_hard_negatives=share
        )
        assert (plainly - shuffled).item() == pytest.approx(0.0, abs=1e-13)


def test_a_masked_candidate_gets_exactly_no_gradient_from_that_query() -> None:
    queries, positives, negatives = unit(4, 3, seed=1), unit(4, 3, seed=2), unit(4, 1, 3, seed=3)
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[0, 2] = mask[0, 5] = True  # query 0 must not push the positive of row 2, nor the hard negative of row 1
    for row in range(4):
        mask[row, row] = True  # asked for, but a row's own positive always counts

    loss = info_nce(queries, positives, negatives, temperature=0.1, false_negative_NM=mask)
    full = torch.autograd.grad(loss, queries, retain_graph=True)[0]
    candidates = torch.cat([positives, negatives.flatten(0, 1)])
    # The gradient to query 0 is a mix of its candidates; with the masked ones taken out it is the same mix.
    kept = [i for i in range(8) if i == 0 or not mask[0, i]]
    shares = functional.softmax(queries[:1] @ candidates[kept].T / 0.1, dim=-1)
    expected = (shares @ candidates[kept] - candidates[:1]) / 0.1 / 4
    torch.testing.assert_close(full[:1], expected, rtol=0, atol=1e-12)
    # Query by query, with all others' rows masked away: the masked candidate's own gradient is exactly zero.
    alone = mask.clone()
    alone[1:] = True  # the other rows see their own positives alone, so they push nothing
    to_positives, to_negatives = torch.autograd.grad(
        info_nce(queries, positives, negatives, temperature=0.1, false_negative_NM=alone), [positives, negatives]
    )
    assert torch.equal(to_positives[2], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(to_negatives[1, 0], torch.zeros(3, dtype=torch.float64))
    assert to_positives[1].abs().max() > 0 and to_negatives[0, 0].abs().max() > 0


def test_fp32_at_a_low_temperature_stays_finite() -> None:
    vectors = unit(8, 4, seed=1, dtype=torch.float32)
    loss = info_nce(vectors, -vectors, temperature=0.001)
    loss.backward()
    assert torch.isfinite(loss) and vectors.grad is not None and torch.isfinite(vectors.grad).all()


keys = st.integers(0, 4)


@settings(deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(0, 3))
def test_duplicate_mask_equals_a_double_loop(data: st.DataObject, n: int, k: int) -> None:
    queries = data.draw(st.lists(keys, min_size=n, max_size=n))
    positives = data.draw(st.lists(keys, min_size=n, max_size=n))
    negatives = data.draw(st.lists(st.lists(keys, min_size=k, max_size=k), min_size=n, max_size=n))
    candidates = positives + [key for row in negatives for key in row]
    expected = torch.zeros(n, n + n * k, dtype=torch.bool)
    for i in range(n):
        known = {positives[j] for j in range(n) if queries[j] == queries[i]} | {queries[i]}
        for c, candidate in enumerate(candidates):
            expected[i, c] = c != i and candidate in known
    found = false_negative_mask(torch.tensor(queries), torch.tensor(positives), torch.tensor(negatives).view(n, k))
    assert torch.equal(found, expected)
    if k == 0:
        assert torch.equal(false_negative_mask(torch.tensor(queries), torch.tensor(positives)), expected)
