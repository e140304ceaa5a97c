"""Fused rankings by hand; RM3 against its equation."""

import numpy as np
import pytest

from gemma4vec.fanout.fuse import fuse, union
from gemma4vec.fanout.rm3 import expansion_words, rm3_scores
from gemma4vec.retrieval.bm25 import BM25Index


def test_scores_are_those_of_reciprocal_ranks() -> None:
    own, others = np.array([3, 1, -1]), [np.array([1, 2, 3]), np.array([2, -1, -1])]
    found, scores = fuse(own, others, 0.5, 4)
    wanted = {3: 1 / 61 + 0.25 / 63, 1: 1 / 62 + 0.25 / 61, 2: 0.25 / 62 + 0.25 / 61}
    assert found.tolist() == [3, 1, 2, -1]
    assert scores[:3] == pytest.approx([wanted[place] for place in (3, 1, 2)])


def test_no_weight_leaves_the_ranking_and_many_suggestions_weigh_as_one() -> None:
    own = np.array([5, 4, 3])
    assert fuse(own, [np.array([3, 9, 8])], 0.0, 3)[0].tolist() == [5, 4, 3]
    one = fuse(own, [np.array([3, 4, 5])], 1.0, 3)
    many = fuse(own, [np.array([3, 4, 5])] * 7, 1.0, 3)
    assert one[0].tolist() == many[0].tolist() and one[1] == pytest.approx(many[1])


def test_the_union_takes_rank_by_rank() -> None:
    found = union(np.array([1, 2, 3]), [np.array([4, 2, -1]), np.array([5, 6, 7])], 6)
    assert found.tolist() == [1, 4, 5, 2, 6, 3]


TEXTS = ["red apples and green apples", "green pears", "a blue car with red doors", "trains and cars"]


def test_words_of_the_first_hits_have_their_shares() -> None:
    index = BM25Index.build(TEXTS)
    found = expansion_words(index, TEXTS, "green apples", documents=2, words=50)
    assert sum(found.values()) == pytest.approx(1)
    scores = index.scores("green apples")
    assert scores[0] > 0 and scores[1] > 0
    shares = scores[:2] / scores[:2].sum()
    tokens = [index.tokenize(text) for text in TEXTS[:2]]
    for word in set(tokens[0]) | set(tokens[1]):
        wanted = sum(share * words.count(word) / len(words) for share, words in zip(shares, tokens, strict=True))
        assert found[word] == pytest.approx(float(wanted))


def test_rm3_finds_what_shares_words_with_the_hits_alone() -> None:
    texts = ["car insurance cost", "automobile car insurance", "automobile premium", "a pear tree"]
    index = BM25Index.build(texts)
    assert index.scores("insurance")[2] == 0 and rm3_scores(index, texts, "insurance")[2] > 0
    assert rm3_scores(index, texts, "insurance")[3] == 0
    np.testing.assert_allclose(rm3_scores(index, texts, "insurance", own=1.0), index.scores("insurance"), rtol=1e-6)
    assert not rm3_scores(index, texts, "zebra").any()
