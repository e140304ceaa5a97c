"""top_k and exact search against sorting everything in Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gemma4vec.errors import InputError, WorkError
from gemma4vec.retrieval.exact import search
from gemma4vec.retrieval.top_k import descending_id_rank, top_k


def sorted_by_hand(row, k, rank):
    order = sorted(range(len(row)), key=lambda place: (-row[place], rank[place]))
    return [place for place in order if row[place] != -np.inf][:k]


few_values = st.sampled_from([-1.5, -0.0, 0.0, 1e-40, 0.25, 0.5, 3e38, -np.inf])


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=few_values), st.data())
def test_ties_follow_the_rank_also_at_the_cut(scores, data):
    k = data.draw(st.integers(1, 15))
    rank = np.array(data.draw(st.permutations(range(scores.shape[1]))))
    found = top_k(scores, k, rank)
    assert found.indices.shape == found.scores.shape == (len(scores), k)
    for row, indices, values in zip(scores, found.indices, found.scores, strict=True):
        expected = sorted_by_hand(row, k, rank)
        assert indices.tolist() == expected + [-1] * (k - len(expected))
        assert values[: len(expected)].tolist() == [row[place] for place in expected]
        assert np.isneginf(values[len(expected) :]).all()


@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 45), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_blocks_do_not_change_exact_search(queries, documents, k, block, seed):
    # Small whole numbers: sums are exact in fp32 whatever their order, and ties are many.
    rng = np.random.default_rng(seed)
    queries_ND = rng.integers(-2, 3, (queries, 3)).astype(np.float32)
    documents_MD = rng.integers(-2, 3, (documents, 3)).astype(np.float32)
    rank = rng.permutation(documents)
    found = search(queries_ND, documents_MD, k, block=block, descending_id_rank=rank)
    assert found.indices.dtype == np.int64 and found.scores.dtype == np.float32
    for row, indices in zip(queries_ND @ documents_MD.T, found.indices, strict=True):
        expected = sorted_by_hand(row, k, rank)
        assert indices.tolist() == expected + [-1] * (k - len(expected))


def test_more_queries_than_are_scored_at_once():
    rng = np.random.default_rng(0)
    queries_ND = rng.standard_normal((600, 8)).astype(np.float32)
    documents_MD = rng.standard_normal((50, 8)).astype(np.float32)
    found = search(queries_ND, documents_MD, 5, block=7)
    np.testing.assert_array_equal(found.indices, np.argsort(-(queries_ND @ documents_MD.T), axis=1)[:, :5])


def test_descending_id_rank_is_trec_evals_order():
    ids = ["10", "9", "b", "a", "é"]
    rank = descending_id_rank(ids)
    assert [ids[place] for place in np.argsort(rank)] == sorted(ids, reverse=True)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(WorkError, match="not a number"):
        search(np.array([[np.nan]], dtype=np.float32), np.ones((3, 1), np.float32), 2)


def test_vectors_of_two_dimensions_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        search(np.ones((1, 2)), np.ones((1, 3)), 1)
    with pytest.raises(InputError, match="at least one"):
        search(np.ones((1, 2)), np.ones((1, 2)), 0)
