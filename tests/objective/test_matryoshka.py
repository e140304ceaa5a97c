"""Nested prefixes against sentence-transformers' wrapper and the plain sum."""

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.objective.gor import gor
from gemma4vec.objective.matryoshka import matryoshka, prefix
from gemma4vec.objective.nce import nce


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()


class GivenEmbeddings(nn.Module):
    """Stands where the loss expects a model: gives the embeddings it is handed."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return 8


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 0.25]])
def test_equals_sentence_transformers_in_value_and_gradient(weights: list[float] | None) -> None:
    inputs = [unit(6, 8, seed=1), unit(6, 8, seed=2), unit(6, 2, 8, seed=3)]
    hardness = {"hardness_mode": "hard_negatives", "hardness_strength": 5.0}
    model = GivenEmbeddings()
    inner = MultipleNegativesRankingLoss(model, scale=10.0, **hardness)  # type: ignore[arg-type]
    wrapped = MatryoshkaLoss(model, inner, [8, 4, 2], matryoshka_weights=weights)  # type: ignore[arg-type]
    columns = [inputs[0], inputs[1], inputs[2][:, 0], inputs[2][:, 1]]
    expected = wrapped([{"vectors": column} for column in columns], torch.empty(0))

    def loss(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return nce(queries, positives, negatives, temperature=0.1, hardness=5.0, max_scores=20)

    found = matryoshka(loss, inputs, [8, 4, 2], weights)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    ours, theirs = torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)
    for vector, to_ours, to_theirs in zip(inputs, ours, theirs, strict=True):
        across = [g - (g * vector).sum(-1, keepdim=True) * vector for g in (to_ours, to_theirs)]
        torch.testing.assert_close(across[0], across[1], rtol=0, atol=1e-12)


def test_any_loss_is_the_sum_over_unit_prefixes_and_finite_differences_agree() -> None:
    vectors = unit(5, 6, seed=4)
    expected = sum(gor(functional.normalize(vectors[:, :d], dim=-1)).item() for d in (6, 3, 1))
    assert matryoshka(gor, [vectors], [1, 6, 3]).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: matryoshka(gor, [x], [6, 3, 2]), unit(3, 6, seed=5))
    assert (prefix(vectors, 3).norm(dim=-1) - 1).abs().max() < 1e-12
    with_none = matryoshka(lambda a, b: gor(a) if b is None else gor(b), [vectors, None], [6])
    assert with_none.item() == pytest.approx(gor(vectors).item(), abs=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    vectors = unit(3, 6, seed=1)
    with pytest.raises(InputError, match="matryoshka: 7 is above the model's 6 dimensions; give at most 6"):
        matryoshka(gor, [vectors], [2, 7])
    with pytest.raises(InputError, match="matryoshka: name at least one dimension"):
        matryoshka(gor, [vectors], [])
    with pytest.raises(InputError, match="1 weights for 2 Matryoshka dimensions"):
        matryoshka(gor, [vectors], [2, 4], [1.0])
