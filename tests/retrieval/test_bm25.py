"""BM25Index against the formula, written out once more."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4vec.errors import InputError
from gemma4vec.retrieval.bm25 import BM25Index, default_parameters
from gemma4vec.retrieval.tokenize import tokenize_code, tokenize_text
from gemma4vec.retrieval.top_k import descending_id_rank

words = st.lists(st.sampled_from("abcdef"), max_size=8).map(" ".join)


def by_formula(query, documents, k1, b):
    """Lucene's BM25 (Kamphuis et al., 2020, equation of Lucene (accurate))."""
    documents = [document.split() for document in documents]
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for token in query.split():
            containing = sum(token in other for other in documents)
            if containing and token in document:
                idf = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
                frequency = document.count(token)
                score += idf * frequency / (frequency + k1 * (1 - b + b * len(document) / average))
        scores.append(score)
    return scores


@given(st.lists(words, min_size=1, max_size=8), words, st.sampled_from([(0.9, 0.4), (1.2, 0.9)]))
def test_scores_are_the_formula(documents, query, parameters):
    index = BM25Index.build(documents, str.split, *parameters)
    if any(documents):
        np.testing.assert_allclose(index.scores(query), by_formula(query, documents, *parameters), rtol=1e-5, atol=1e-6)


@given(st.lists(words, min_size=1, max_size=8), st.lists(words, max_size=3), st.integers(1, 10), st.data())
def test_search_orders_the_scores_and_leaves_out_what_it_must(documents, queries, k, data):
    exclude = [data.draw(st.sets(st.integers(0, len(documents) - 1))) for _ in queries]
    index = BM25Index.build(documents, str.split)
    found = index.search(queries, k, exclude)
    assert found.indices.shape == (len(queries), k) and found.scores.dtype == np.float32
    for query, left_out, indices in zip(queries, exclude, found.indices, strict=True):
        scores = index.scores(query)
        order = [place for place in np.argsort(-scores, kind="stable") if scores[place] > 0 and place not in left_out]
        assert indices.tolist() == order[:k] + [-1] * (k - len(order[:k]))


def test_ties_follow_descending_ids():
    rank = descending_id_rank(["a", "c", "b"])
    found = BM25Index.build(["x y", "x y", "x y"], str.split).search(["x"], 2, descending_id_rank=rank)
    assert found.indices.tolist() == [[1, 2]]


def test_code_and_prose_have_their_own_parameters():
    texts = ["def f(): return value " + "other " * 30, "value of it all", "nothing here to see"]
    assert default_parameters(tokenize_code) == (1.2, 0.9) and default_parameters(tokenize_text) == (0.9, 0.4)
    by_default = BM25Index.build(texts, tokenize_code).scores("value")
    np.testing.assert_array_equal(by_default, BM25Index.build(texts, tokenize_code, 1.2, 0.9).scores("value"))
    assert not np.array_equal(by_default, BM25Index.build(texts, tokenize_code, 0.9, 0.4).scores("value"))


def test_no_corpus_and_no_tokens():
    with pytest.raises(InputError, match="corpus is empty"):
        BM25Index.build([])
    assert BM25Index.build(["", " . "]).search(["anything", ""], 3).indices.tolist() == [[-1] * 3] * 2
