"""Bounds of nDCG against every choice of right documents, and against trec_eval's own code."""

import itertools

import numpy as np
import pytest
import pytrec_eval

from gemma4vec.inspection.labels.bounds import ndcg_bounds


def trec(ranks: list[int | None], judged: list[int], right: tuple[int, ...], k: int) -> float:
    """nDCG@k by trec_eval where the unjudged at these places are right."""
    documents = {f"d{place}": grade for place, grade in enumerate(ranks) if grade is not None}
    rest = list(judged)
    for grade in documents.values():
        rest.remove(grade)
    qrels = documents | {f"x{number}": grade for number, grade in enumerate(rest)} | {f"d{place}": 1 for place in right}
    run = {f"d{place}": float(100 - place) for place in range(len(ranks))}
    return float(
        pytrec_eval.RelevanceEvaluator({"q": qrels}, {f"ndcg_cut.{k}"}).evaluate({"q": run})["q"][f"ndcg_cut_{k}"]
    )


@pytest.mark.parametrize("seed", range(12))
def test_bounds_are_the_least_and_most_of_all_choices(seed: int) -> None:
    generator = np.random.default_rng(seed)
    length = int(generator.integers(1, 8))
    ranks: list[int | None] = [
        None if generator.random() < 0.6 else int(generator.integers(0, 3)) for _ in range(length)
    ]
    judged = [one for one in ranks if one is not None] + generator.integers(
        1, 3, size=int(generator.integers(1, 4))
    ).tolist()
    unjudged = [place for place, grade in enumerate(ranks) if grade is None and place < 5]
    every = [
        trec(ranks, judged, right, 5)
        for size in range(len(unjudged) + 1)
        for right in itertools.combinations(unjudged, size)
    ]
    found = ndcg_bounds(ranks, judged, 5)
    assert found.low == pytest.approx(min(every)) and found.high == pytest.approx(max(every))
    assert found.none == pytest.approx(every[0]) and found.all == pytest.approx(every[-1])


@pytest.mark.parametrize("seed", range(6))
def test_open_documents_that_are_not_shown_only_raise_the_best_possible(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranks: list[int | None] = [None if generator.random() < 0.5 else int(generator.integers(0, 2)) for _ in range(5)]
    judged, elsewhere = [one for one in ranks if one is not None] + [2], int(generator.integers(1, 4))
    unjudged = [place for place, grade in enumerate(ranks) if grade is None]
    every = [
        trec(ranks, judged + [1] * hidden, right, 5)
        for hidden in range(elsewhere + 1)
        for size in range(len(unjudged) + 1)
        for right in itertools.combinations(unjudged, size)
    ]
    found = ndcg_bounds(ranks, judged, 5, elsewhere=elsewhere)
    assert found.low == pytest.approx(min(every)) and found.high == pytest.approx(max(every))
    assert found.none == pytest.approx(every[0]) and found.all == pytest.approx(every[-1])


def test_nothing_shown_and_nothing_right() -> None:
    assert ndcg_bounds([], [1]) == (0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no right document"):
        ndcg_bounds([None], [0, -1])
