"""NCE with all its options: against sentence-transformers, a plain double loop, and finite differences."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from gemma4vec.objective.false_negatives import FalseNegatives, TextHashes
from gemma4vec.objective.nce import false_negative_mask, info_nce, nce, self_contrast

OPTIONS: list[dict[str, Any]] = [
    {},
    {"share_hard_negatives": False},
    {"hardness": 5.0},
    {"hardness": 5.0, "share_hard_negatives": False},
    {"query_query": True},
    {"passage_passage": True},
    {"passage_passage": True, "share_hard_negatives": False},
    {"symmetric": True},
    {"false_negative_margin": 0.1},
    {"decoupled": True},
    {"decoupled": True, "hardness": 5.0, "share_hard_negatives": False, "symmetric": True},
    {
        "hardness": 2.0,
        "query_query": True,
        "passage_passage": True,
        "symmetric": True,
        "false_negative_margin": 0.2,
    },
]


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1).requires_grad_()


def batch(n: int, k: int, seed: int, dimensions: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    return (
        unit(n, dimensions, seed=seed),
        unit(n, dimensions, seed=seed + 100),
        unit(n, k, dimensions, seed=seed + 200),
    )


def random_keys(n: int, k: int, seed: int, texts: int = 8) -> TextHashes:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randint(texts, shape, generator=generator) * 7919 - 2**62

    return TextHashes(draw(n), draw(n), draw(n, k))


def slow(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    keys: TextHashes | None,
    temperature: Tensor,
    *,
    share_hard_negatives: bool = True,
    hardness: float = 5.0,
    query_query: bool = False,
    passage_passage: bool = False,
    symmetric: bool = False,
    false_negative_margin: float | None = None,
    decoupled: bool = False,
) -> Tensor:
    """The definition, term by term: each candidate asked on its own whether it counts."""
    n, k = negatives.shape[:2]
    q, p, h = (
        ([key.tolist() for key in (keys.queries_N, keys.positives_N, keys.negatives_NK)])
        if keys
        else (None, None, None)
    )
    losses, back = [], []

    def loss_of(terms: list[Tensor]) -> Tensor:
        if decoupled:
            return sum(map(torch.exp, terms[1:]), terms[0] * 0).log() - terms[0] if len(terms) > 1 else terms[0] * 0
        return torch.logsumexp(torch.stack(terms), 0) - terms[0]

    for i in range(n):
        own = queries[i] @ positives[i]
        answers = {p[j] for j in range(n) if q[j] == q[i]} | {q[i]} if q and p else set()
        askers = {q[j] for j in range(n) if p[j] == p[i]} | {p[i]} if q and p else set()

        def counts(similarity: Tensor, key: int | None, known: set[int], own: Tensor = own) -> bool:
            above = false_negative_margin is not None and bool(similarity > own + false_negative_margin)
            return key not in known and not above

        terms = [own / temperature]
        for j in range(n):
            passages = [(positives[j], p[j] if p else None, False)] if j != i else []
            if j == i or share_hard_negatives:
                passages += [(negatives[j, c], h[j][c] if h else None, j == i) for c in range(k)]
            for vector, key, mine in passages:
                similarity = queries[i] @ vector
                if counts(similarity, key, answers):
                    terms.append(similarity / temperature + (hardness * similarity.detach() if mine else 0.0))
                between = positives[i] @ vector
                if passage_passage and not mine and counts(between, key, answers):
                    terms.append(between / temperature)
            between = queries[i] @ queries[j]
            if query_query and j != i and counts(between, q[j] if q else None, askers):
                terms.append(between / temperature)
        losses.append(loss_of(terms))
        terms = [own / temperature]
        for j in range(n):
            similarity = positives[i] @ queries[j]
            if j != i and counts(similarity, q[j] if q else None, askers):
                terms.append(similarity / temperature)
        back.append(loss_of(terms))
    forward = torch.stack(losses).mean()
    return (forward + torch.stack(back).mean()) / 2 if symmetric else forward


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("keyed", [True, False])
def test_values_and_gradients_are_those_of_the_definition(options: dict[str, Any], keyed: bool) -> None:
    for seed, (n, k) in enumerate([(6, 2), (5, 0), (2, 3), (7, 1)]):
        inputs = batch(n, k, seed)
        keys = random_keys(n, k, seed) if keyed else None
        temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        expected = slow(*inputs, keys, temperature, **options)
        wanted = torch.autograd.grad(expected, [*inputs, temperature], allow_unused=True, materialize_grads=True)
        for elements in (1, 17, 10**6):
            found = nce(*inputs, temperature=temperature, text_hashes=keys, max_scores=elements, **options)
            assert (found - expected).item() == pytest.approx(0.0, abs=1e-12)
            got = torch.autograd.grad(found, [*inputs, temperature], allow_unused=True, materialize_grads=True)
            for ours, theirs in zip(got, wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [True, False])
def test_with_alpha_0_and_at_rest_it_is_plain_nce_whole_and_in_blocks(share: bool) -> None:
    inputs, keys = batch(9, 3, 1), random_keys(9, 3, 5, texts=20)
    mask = false_negative_mask(keys.queries_N, keys.positives_N, keys.negatives_NK)
    plain = info_nce(*inputs, temperature=0.05, share_hard_negatives=share, false_negative_NM=mask)
    whole = nce(*inputs, temperature=0.05, hardness=0.0, share_hard_negatives=share, text_hashes=keys)
    assert torch.equal(whole, plain)  # to the last bit: recipes from before the options train as they did
    in_blocks = nce(
        *inputs, temperature=0.05, hardness=0.0, share_hard_negatives=share, text_hashes=keys, max_scores=40
    )
    assert (in_blocks - plain).item() == pytest.approx(0.0, abs=1e-12)
    for ours, theirs in zip(torch.autograd.grad(in_blocks, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


class GivenEmbeddings(nn.Module):
    """Stands where the loss expects a model: gives the embeddings it is handed."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}


def across(gradient: Tensor, vector: Tensor) -> Tensor:
    """The part across the unit vector: their cosine differentiates through the normalisation."""
    return gradient - (gradient * vector).sum(-1, keepdim=True) * vector


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"hardness": 5.0}, {"hardness_mode": "hard_negatives", "hardness_strength": 5.0}),
        ({"hardness": 0.0}, {}),
        ({"query_query": True}, {"directions": ("query_to_doc", "query_to_query")}),
        ({"passage_passage": True}, {"directions": ("query_to_doc", "doc_to_doc")}),
        (
            {"query_query": True, "passage_passage": True, "hardness": 3.0},
            {
                "directions": ("query_to_doc", "query_to_query", "doc_to_doc"),
                "hardness_mode": "hard_negatives",
                "hardness_strength": 3.0,
            },
        ),
        ({"symmetric": True}, {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}),
    ],
)
def test_options_are_those_of_sentence_transformers(k: int, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    inputs = batch(6, k, 3)
    found = nce(*inputs, temperature=0.1, max_scores=50, **({"hardness": 0.0} | ours))
    loss = MultipleNegativesRankingLoss(GivenEmbeddings(), scale=10.0, **theirs)  # type: ignore[arg-type]
    columns = [inputs[0], inputs[1], *(inputs[2][:, column] for column in range(k))]
    expected = loss([{"vectors": column} for column in columns], torch.empty(0))
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    gradients = zip(inputs, torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True)
    for vector, to_ours, to_theirs in gradients:
        torch.testing.assert_close(across(to_ours, vector), to_theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_pass_finite_differences(options: dict[str, Any]) -> None:
    options = options | {"hardness": 0.0}  # finite differences see through stop_gradient
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    keys = random_keys(4, 2, 1, texts=12)

    def loss(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: Tensor) -> Tensor:
        return nce(queries, positives, negatives, temperature=temperature, text_hashes=keys, max_scores=10, **options)

    assert torch.autograd.gradcheck(loss, (*batch(4, 2, 1, dimensions=3), temperature))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 7), st.integers(0, 3), st.sampled_from(OPTIONS), st.integers(1, 60))
def test_the_order_of_rows_does_not_matter(seed: int, n: int, k: int, options: dict[str, Any], elements: int) -> None:
    inputs, keys = batch(n, k, seed), random_keys(n, k, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = TextHashes(keys.queries_N[order], keys.positives_N[order], keys.negatives_NK[order])
    one = nce(*inputs, temperature=0.1, text_hashes=keys, max_scores=elements, **options)
    two = nce(*(part[order] for part in inputs), temperature=0.1, text_hashes=shuffled, max_scores=elements, **options)
    assert (one - two).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("elements", [1, 10**6])
@pytest.mark.parametrize("share", [True, False])
def test_a_candidate_that_does_not_count_gets_exactly_no_gradient(elements: int, share: bool) -> None:
    queries, positives, negatives = batch(3, 2, 4)
    loss = nce(
        queries, positives, negatives, temperature=0.1, max_scores=elements, hardness=5.0, false_negative_margin=-3.0
    )  # every candidate is above that, so none counts
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, [queries, positives, negatives]):
        assert gradient.abs().max() == 0.0
    # The first and third row ask the same; their answers, 11 and 13, also stand among the hard negatives.
    keys = TextHashes(torch.tensor([1, 2, 1]), torch.tensor([11, 12, 13]), torch.tensor([[21, 11], [13, 11], [11, 22]]))
    options: dict[str, Any] = {"hardness": 5.0, "share_hard_negatives": share}
    loss = nce(queries, positives, negatives, temperature=0.1, text_hashes=keys, max_scores=elements, **options)
    to_queries, to_positives, to_negatives = torch.autograd.grad(loss, [queries, positives, negatives])
    counted = torch.zeros(3, 2, dtype=torch.bool)
    for row in range(3):
        for column in range(2):
            seers = range(3) if share else [row]
            text = int(keys.negatives_NK[row, column])
            counted[row, column] = any(text not in ({11, 13, 1}, {12, 2}, {11, 13, 1})[i] for i in seers)
    assert torch.equal(to_negatives.abs().sum(-1) > 0, counted)
    assert to_queries.abs().max() > 0 and to_positives.abs().max() > 0


def test_a_harder_own_negative_is_pushed_more_and_only_the_row_s_own() -> None:
    queries, positives, negatives = batch(5, 2, 7)
    alone = nce(queries, positives, negatives, temperature=0.2, max_scores=1, hardness=0.0)
    weighted = nce(queries, positives, negatives, temperature=0.2)  # 5.0, as the paper has it
    plain, heavy = (torch.autograd.grad(loss, negatives)[0] for loss in (alone, weighted))
    own = (queries[:, None] * negatives).sum(-1)
    queries, positives, negatives, own = (part.detach() for part in (queries, positives, negatives, own))
    expected = 0.0
    for i in range(5):  # the paper's formula, with w outside the exponential
        others = [queries[i] @ positives[j] for j in range(5) if j != i]
        others += [queries[i] @ negatives[j, c] for j in range(5) if j != i for c in range(2)]
        whole = sum(math.exp(s / 0.2) for s in others)
        whole += sum(math.exp(5.0 * s) * math.exp(s / 0.2) for s in own[i].tolist())
        first = math.exp(queries[i] @ positives[i] / 0.2)
        expected -= math.log(first / (whole + first)) / 5
    assert weighted.item() == pytest.approx(expected, abs=1e-12)
    assert not torch.allclose(plain, heavy)


def test_self_contrast_is_the_symmetric_loss_of_two_views() -> None:
    views, others = unit(6, 4, seed=1), unit(6, 4, seed=2)
    plain = (info_nce(views, others, temperature=0.1) + info_nce(others, views, temperature=0.1)) / 2
    found = self_contrast(views, others, temperature=0.1)
    assert (found - plain).item() == pytest.approx(0.0, abs=1e-12)
    # A text that stands twice in the batch is no negative of itself.
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[4, 5] = mask[5, 4] = True
    there = info_nce(views, others, temperature=0.1, false_negative_NM=mask)
    back = info_nce(others, views, temperature=0.1, false_negative_NM=mask)
    twice = self_contrast(views, others, temperature=0.1, text_hashes_N=torch.tensor([1, 2, 3, 4, 5, 5]))
    assert (twice - (there + back) / 2).item() == pytest.approx(0.0, abs=1e-12)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation inside gave."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = out if isinstance(out, tuple | list) else [out]
        self.largest = max([self.largest, *(part.numel() for part in given if isinstance(part, Tensor))])
        return out


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_score_matrix_is_never_whole(options: dict[str, Any]) -> None:
    n, k = 64, 4
    inputs, keys = batch(n, k, 1), random_keys(n, k, 1, texts=10**6)
    with LargestTensor() as seen:
        loss = nce(*inputs, temperature=0.1, text_hashes=keys, max_scores=2000, **options)
        torch.autograd.grad(loss, inputs)
    assert 1000 < seen.largest < n * n  # of n * n * (1 + k)


def test_fp32_at_a_low_temperature_stays_finite() -> None:
    vectors = unit(8, 4, seed=1, dtype=torch.float32)
    loss = nce(vectors, -vectors, temperature=0.001, max_scores=9, symmetric=True, hardness=5.0)
    loss.backward()
    assert torch.isfinite(loss) and vectors.grad is not None and torch.isfinite(vectors.grad).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(0, 3), st.integers(1, 9))
def test_blocks_of_duplicates_are_rows_of_the_whole_mask(seed: int, n: int, k: int, size: int) -> None:
    keys = random_keys(n, k, seed, texts=6)
    whole = false_negative_mask(keys.queries_N, keys.positives_N, keys.negatives_NK)
    candidates = torch.cat([keys.positives_N, keys.negatives_NK.flatten()])
    found = FalseNegatives(keys.queries_N, keys.positives_N, candidates, torch.device("cpu"))
    rows = torch.cat([found.mask(start, min(start + size, n)) for start in range(0, n, size)])
    assert torch.equal(rows.fill_diagonal_(True), whole.fill_diagonal_(True))  # the own positive is known to itself
