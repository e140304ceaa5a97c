"""Retrieval: rank the documents for every query, and score the rankings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.results.marks import REPEATED, count_repeated
from gemma4vec.evaluation.results.task_scores import TaskScores
from gemma4vec.evaluation.scoring.metrics import judged_share, per_query, tie_rate
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, Ranking, count_constant
from gemma4vec.evaluation.scoring.vector_ranking import count_to_rank, settle

TOP = 10  # ranks stored with their scores, for reports


def _score_retrieval(
    ranker: Ranker,
    suite: RetrievalSuite,
    *,
    metrics: Sequence[str],
    depth: int,
    progress: Progress,
    rankings: dict[str, Ranking] | None = None,
) -> TaskScores:
    """Compute every metric of every query; `rankings` is given the task's ranking.

    Raises:
        InputError: an unknown metric. WorkError: vectors that are not finite or not of unit length.
    """
    ranking = _ranking(ranker, suite, depth, progress)
    if rankings is not None:
        rankings[suite.name] = ranking
    scores = per_query(ranking.indices, ranking.scores, suite.query_ids, suite.corpus_ids, suite.qrels, metrics=metrics)
    items = {
        query_id: {metric: float(values_N[row]) for metric, values_N in scores.items()}
        for row, query_id in enumerate(suite.query_ids)
    }
    return TaskScores(items, _quality(ranking, suite, depth), ranking.seconds, _top_rows(ranking, suite))


def _ranking(ranker: Ranker, suite: RetrievalSuite, depth: int, progress: Progress) -> Ranking:
    """Return the ranking to score: of units if the suite has some, without own documents if it excludes them."""
    return settle(suite, ranker.rank(suite, count_to_rank(suite, depth), progress), depth)


def _quality(ranking: Ranking, suite: RetrievalSuite, depth: int) -> dict[str, Any]:
    """Describe signs of unreliable scores: ties, missing judgments, constant scores."""
    constant = count_constant(ranking)
    return {
        "depth": depth,
        "tie_rate@10": tie_rate(ranking.scores, ranking.indices),
        "judged@10": judged_share(ranking.indices, suite.query_ids, suite.corpus_ids, suite.qrels),
        "queries_without_documents": int(np.count_nonzero((ranking.indices < 0).all(axis=1))),
        "queries_with_constant_scores": constant,
        REPEATED: count_repeated(suite.queries),
        "degenerate": constant > len(suite.queries) / 2,
    }


def _top_rows(ranking: Ranking, suite: RetrievalSuite) -> list[dict[str, Any]]:
    """Return the first ranks of every query as rows of top.parquet."""
    return [
        {"query_id": query_id, "rank": rank + 1, "doc_id": suite.corpus_ids[index], "score": float(score)}
        for row, query_id in enumerate(suite.query_ids)
        for rank, (index, score) in enumerate(
            zip(ranking.indices[row, :TOP].tolist(), ranking.scores[row, :TOP].tolist(), strict=True)
        )
        if index >= 0
    ]
