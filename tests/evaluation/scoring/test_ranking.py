"""Own documents and constant scores."""

import numpy as np

from gemma4vec.evaluation.scoring.ranking import Ranking, count_constant, without_own_document


def test_the_querys_own_document_makes_room_for_the_next() -> None:
    ranking = Ranking(
        np.array([[0, 1, 2], [1, 2, 0], [2, 1, -1]]),
        np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, -np.inf]], dtype=np.float32),
        {"search": 1.0},
    )
    kept = without_own_document(ranking, ["a", "other", "b"], ["a", "b", "c"], depth=2)
    assert kept.indices.tolist() == [[1, 2], [1, 2], [2, -1]]
    assert kept.scores.tolist() == [[2.0, 1.0], [3.0, 2.0], [3.0, -np.inf]]
    assert kept.scores.dtype == np.float32
    assert kept.seconds == {"search": 1.0}


def test_a_corpus_of_the_own_document_only_leaves_nothing() -> None:
    kept = without_own_document(Ranking(np.array([[0]]), np.ones((1, 1), np.float32)), ["a"], ["a"], depth=1)
    assert kept.indices.tolist() == [[-1]]


def test_constant_scores_are_counted_up_to_rounding() -> None:
    scores = np.array([[1.0, 1.0 - 1e-7], [0.0, 0.0], [1.0, 0.99], [1.0, -np.inf]], dtype=np.float32)
    indices = np.array([[0, 1], [0, 1], [0, 1], [0, -1]])
    assert count_constant(Ranking(indices, scores)) == 2
