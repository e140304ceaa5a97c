"""Teachers: vectors and scores against sentence-transformers' losses, relations against the double sum."""

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, EmbedDistillLoss, MarginMSELoss
from torch import Tensor, nn
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.objective.matching import (
    Distance,
    embedding_matching,
    listwise_matching,
    margin_mse,
    relational_matching,
    score_candidates,
    score_distillation,
)


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()


@pytest.mark.parametrize(
    ("distance", "metric", "factor"), [("squared", "mse", 5), ("l2", "l2", 1), ("cosine",) * 2 + (1,)]
)
def test_embedding_matching_is_that_of_sentence_transformers(distance: Distance, metric: str, factor: int) -> None:
    student, teacher = unit(4, 5, seed=1), unit(4, 5, seed=2)
    theirs = EmbedDistillLoss(nn.Identity(), distance_metric=metric)  # type: ignore[arg-type]
    expected = factor * theirs.compute_loss_from_embeddings([student], [teacher])  # mse is a mean over dimensions too
    found = embedding_matching(student, teacher, distance=distance)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    ours, wanted = (torch.autograd.grad(loss, student)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)
    assert embedding_matching(teacher, teacher, distance=distance).item() == pytest.approx(0.0, abs=1e-12)


def test_a_projection_leads_to_the_teachers_dimensions_and_is_trained() -> None:
    student, teacher = unit(4, 5, seed=1), unit(4, 3, seed=2)
    projection = unit(3, 5, seed=3)
    by_hand = sum(float(((projection @ s - t) ** 2).sum()) for s, t in zip(student, teacher, strict=True)) / 4
    found = embedding_matching(student, teacher, projection)
    assert found.item() == pytest.approx(by_hand, abs=1e-12)
    assert torch.autograd.gradcheck(lambda s, p: embedding_matching(s, teacher, p), (student, projection))
    assert torch.autograd.grad(found, teacher, allow_unused=True)[0] is None


def test_a_teacher_of_another_dimension_is_refused_without_projection() -> None:
    with pytest.raises(InputError, match="the teacher has 3 dimensions, the model 5; name a projection"):
        embedding_matching(unit(4, 5, seed=1), unit(4, 3, seed=2))
    with pytest.raises(InputError, match="the projection leads from 3 to 5 dimensions; 5 to 3 are needed"):
        embedding_matching(unit(4, 5, seed=1), unit(4, 3, seed=2), unit(5, 3, seed=3))


@pytest.mark.parametrize("elements", [1, 15, 10**6])
def test_relational_matching_is_the_double_sum_in_any_block(elements: int) -> None:
    student, teacher = unit(7, 5, seed=1), unit(7, 3, seed=2)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    expected = torch.stack([(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i, j in pairs]).mean()
    found = relational_matching(student, teacher, max_scores=elements)
    assert (found - expected).item() == pytest.approx(0.0, abs=1e-12)
    wanted, unused = torch.autograd.grad(expected, [student, teacher])
    assert unused.abs().max() > 0
    torch.testing.assert_close(torch.autograd.grad(found, student)[0], wanted, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda s: 3 * relational_matching(s, teacher, max_scores=elements), student)
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    assert relational_matching(student, student @ turned).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("elements", [1, 20, 10**6])
def test_a_list_is_the_divergence_of_two_softmaxes_in_any_block(elements: int) -> None:
    queries, candidates = unit(5, 6, seed=1), unit(9, 6, seed=2)
    teacher_queries, teacher_candidates = unit(5, 3, seed=3), unit(9, 3, seed=4)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    student, teacher = queries @ candidates.T, teacher_queries @ teacher_candidates.T
    expected = score_distillation(student, teacher, temperature=temperature, teacher_temperature=0.2, scaled=False)

    def found(q: Tensor, c: Tensor, t: Tensor, weights: Tensor | None = None) -> Tensor:
        return listwise_matching(
            q,
            c,
            teacher_queries,
            teacher_candidates,
            temperature=t,
            teacher_temperature=0.2,
            row_weights_N=weights,
            max_scores=elements,
        )

    inputs = [queries, candidates, temperature]
    torch.testing.assert_close(found(*inputs), expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected, inputs)
    assert all(one.abs().max() > 0.01 for one in wanted)
    for ours, theirs in zip(torch.autograd.grad(found(*inputs), inputs), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(found, inputs)
    weights = torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0])
    rows = torch.stack(
        [
            score_distillation(one[None], other[None], temperature=0.3, teacher_temperature=0.2, scaled=False)
            for one, other in zip(student, teacher, strict=True)
        ]
    )
    torch.testing.assert_close(found(*inputs, weights), (rows * weights).mean(), rtol=0, atol=1e-12)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_a_list() -> None:
    queries, candidates = unit(5, 6, seed=1), unit(9, 6, seed=2)
    loss = listwise_matching(queries, candidates, queries, candidates, temperature=0.1, teacher_temperature=0.1)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    for gradient in torch.autograd.grad(loss, [queries, candidates]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_a_list_of_other_texts_or_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="the teacher has 4 queries and 9 candidates, the batch 5 and 9"):
        listwise_matching(unit(5, 6, seed=1), unit(9, 6, seed=2), unit(4, 3, seed=3), unit(9, 3, seed=4))
    with pytest.raises(InputError, match="a list of one candidate says nothing"):
        listwise_matching(unit(1, 6, seed=1), unit(1, 6, seed=2), unit(1, 3, seed=3), unit(1, 3, seed=4))


def columns(k: int) -> list[Tensor]:
    return [unit(4, 5, seed=seed) for seed in range(2 + k)]


@pytest.mark.parametrize("k", [1, 3])
def test_score_losses_are_those_of_sentence_transformers(k: int) -> None:
    vectors = columns(k)
    teacher = 3 * torch.randn(4, 1 + k, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    scores = score_candidates(vectors[0], vectors[1], torch.stack(vectors[2:], dim=1))
    for ours, theirs in (
        (margin_mse(scores, teacher), MarginMSELoss(nn.Identity())),  # type: ignore[arg-type]
        (
            score_distillation(scores, teacher, temperature=0.5, teacher_temperature=2.0),
            DistillKLDivLoss(nn.Identity(), student_temperature=0.5, teacher_temperature=2.0),  # type: ignore[arg-type]
        ),
    ):
        expected = theirs.compute_loss_from_embeddings(vectors, teacher)
        assert ours.item() == pytest.approx(expected.item(), abs=1e-12)
        for vector, to_ours, to_theirs in zip(
            vectors,
            torch.autograd.grad(ours, vectors, retain_graph=True),
            torch.autograd.grad(expected, vectors),
            strict=True,
        ):
            tangents = [g - (g * vector).sum(-1, keepdim=True) * vector for g in (to_ours, to_theirs)]
            torch.testing.assert_close(tangents[0], tangents[1], rtol=0, atol=1e-12)


def test_score_losses_pass_finite_differences_and_refuse_what_says_nothing() -> None:
    student, teacher = unit(3, 4, seed=1), unit(3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda s: score_distillation(s, teacher, temperature=0.5), student)
    assert torch.autograd.gradcheck(lambda s: margin_mse(s, teacher), student)
    with pytest.raises(InputError, match=r"the teacher scored \(3, 3\) candidates, the rows \(3, 4\)"):
        margin_mse(student, teacher[:, :3])
    with pytest.raises(InputError, match="say nothing without a hard negative"):
        score_distillation(student[:, :1], teacher[:, :1])
