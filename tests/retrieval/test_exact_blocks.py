"""Blocks, tiles and groups change nothing: the same documents as one product and a full sort, ties too."""

import numpy as np
import pytest

from gemma4vec.errors import WorkError
from gemma4vec.retrieval import exact


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("levels", [3, 1000])
def test_blocks_and_groups_equal_a_full_sort_with_ties(monkeypatch, k, levels):
    monkeypatch.setattr(exact, "QUERIES_AT_ONCE", 4)
    monkeypatch.setattr(exact, "FIRST_BLOCK", 2)
    monkeypatch.setattr(exact, "CANDIDATES_PER_GROUP", 6 * k)
    generator = np.random.default_rng(levels)
    queries, documents = (generator.integers(0, levels, (n, 2)).astype(np.float32) for n in (11, 50))
    rank = generator.permutation(50)
    seen = []
    found = exact.search(queries, documents, k, 9, rank, lambda *place: seen.append(place))
    scores = queries @ documents.T
    for row in range(11):
        best = np.lexsort((rank, -scores[row]))[:k]
        assert found.indices[row, : len(best)].tolist() == best.tolist()
        assert found.scores[row, : len(best)].tolist() == scores[row, best].tolist()
        assert (found.indices[row, len(best) :] == -1).all()
    assert seen[-1] == (550, 550) and seen == sorted(seen)


def test_a_score_that_is_not_a_number_is_refused_also_in_a_late_block():
    documents = np.ones((20, 2), np.float32)
    documents[19] = np.nan
    with pytest.raises(WorkError, match="not a number"):
        exact.search(np.ones((3, 2), np.float32), documents, 2, 5)
