"""What a model does with each query of a suite: scores, the first ranks, and the rank of every judged document.

A stored result stops at rank 10; here ranks go to `DEPTH`. Scoring is `evaluate`'s, with its guards and its look.

Legend: N queries, K first ranks, J judged documents of all queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.metrics import DEFAULT_METRICS, DEPTH
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, Ranking, no_progress
from gemma4vec.inspection.steps import Arrays, Steps
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.text_embedder import TextEmbedder

TOP = 10
NOT_FOUND = 0  # as a rank: beyond `DEPTH`, or no token in common

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """One model on one suite, queries and documents in the suite's order.

    Attributes:
        metrics: names of the rows of `scores`.
        scores: float64[metrics, N].
        top, top_scores: positions of the first documents, int64[N, K], -1 where fewer were found; their scores.
        query, document, grade, rank, score: of each judged document, [J]; rank 0 if it was not found.
    """

    metrics: npt.NDArray[np.str_]
    scores: Floats
    top: Ints
    top_scores: Floats
    query: Ints
    document: Ints
    grade: Ints
    rank: Ints
    score: Floats

    def values(self, metric: str) -> Floats:
        """One metric of every query, float64[N]."""
        return self.scores[list(self.metrics).index(metric)]

    def gold_rank(self) -> Ints:
        """Rank of each query's best right document, int64[N]; 0 if none was found."""
        best_N = np.full(self.scores.shape[1], DEPTH + 1, dtype=np.int64)
        right = (self.grade >= 1) & (self.rank != NOT_FOUND)
        np.minimum.at(best_N, self.query[right], self.rank[right])
        return np.where(best_N > DEPTH, NOT_FOUND, best_N)

    def gold_score(self) -> Floats:
        """Score of each query's best right document, float64[N]; nan if none was found."""
        best_N = np.full(self.scores.shape[1], -np.inf)
        right = (self.grade >= 1) & (self.rank != NOT_FOUND)
        np.maximum.at(best_N, self.query[right], self.score[right])
        return np.where(np.isfinite(best_N), best_N, np.nan)


def read_model(
    model: TextEmbedder | Ranker,
    suite: RetrievalSuite,
    steps: Steps,
    *,
    run: RunFolder | None = None,
    progress: Progress = no_progress,
) -> Reading:
    """Score and rank, or take what was read before.

    Raises:
        InputError: as `evaluate`. WorkError: vectors that are not finite or not of unit length.
    """
    found = steps.take("reading", partial(_read, model, suite, run, progress))
    return Reading(**{one.name: found[one.name] for one in fields(Reading)})


def _read(model: TextEmbedder | Ranker, suite: RetrievalSuite, run: RunFolder | None, progress: Progress) -> Arrays:
    from gemma4vec.evaluation.scoring.evaluate import evaluate  # imports torch; who shows an inspection needs none

    rankings: dict[str, Ranking] = {}
    result = evaluate(model, suite, None, depth=DEPTH, run=run, progress=progress, rankings=rankings)
    ranking = rankings[suite.name]
    metrics = list(dict.fromkeys([*DEFAULT_METRICS, result.metric]))
    scores = [[result.per_query[suite.name][query][metric] for query in suite.query_ids] for metric in metrics]
    return {
        "metrics": np.array(metrics),
        "scores": np.array(scores, dtype=np.float64),
        "top": ranking.indices[:, :TOP],
        "top_scores": ranking.scores[:, :TOP].astype(np.float64),
        **judged_ranks(ranking, suite.query_ids, suite.corpus_ids, suite.qrels),
    }


def touched_by_training(
    model: TextEmbedder | Ranker, suite: RetrievalSuite, run: RunFolder | None = None
) -> list[bool] | None:
    """Whether the model's training data has each query or a right document of it, by the checks so far, [N].

    None for a model that nothing is known of: it was trained on nothing, or its data was not checked against the suite.

    Raises:
        InputError: a damaged record of a check, or damaged settings of a saved model.
    """
    from gemma4vec.evaluation.scoring.contamination_mark import find_mark  # these import torch, as above
    from gemma4vec.evaluation.scoring.guards import find_lineage, find_owner

    mark = find_mark(find_lineage(model, find_owner(model, run=run)), [suite])
    if mark is None or not mark["sources"]:
        return None
    touched = set(mark["touched_queries"].get(suite.name, []))
    return [key in touched for key in suite.query_ids]


def judged_ranks(
    ranking: Ranking, query_ids: Sequence[str], document_ids: Sequence[str], qrels: dict[str, dict[str, int]]
) -> Arrays:
    """Rank and score of every judged document: `query`, `document`, `grade`, `rank` (0: not found), `score`, [J]."""
    place = {key: index for index, key in enumerate(document_ids)}
    rows = [
        (row, place[key], grade)
        for row, query in enumerate(query_ids)
        for key, grade in sorted(qrels[query].items())
        if key in place
    ]
    query_J, document_J, grade_J = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    rank_J, score_J = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), np.nan)
    start_N = np.searchsorted(query_J, np.arange(len(query_ids) + 1))
    for row in range(len(query_ids)):
        mine = slice(start_N[row], start_N[row + 1])
        order = np.argsort(ranking.indices[row], kind="stable")
        found = np.searchsorted(ranking.indices[row], document_J[mine], sorter=order)
        at = order[np.minimum(found, len(order) - 1)]
        hit = ranking.indices[row][at] == document_J[mine]
        rank_J[mine] = np.where(hit, at + 1, NOT_FOUND)
        score_J[mine] = np.where(hit, ranking.scores[row][at], np.nan)
    return {"query": query_J, "document": document_J, "grade": grade_J, "rank": rank_J, "score": score_J}
