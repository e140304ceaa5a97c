"""Evaluate one model on one retrieval suite."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.data.suites import RetrievalSuite
from gemma4vec.evaluation.metrics import DEFAULT_METRICS, DEPTH, judged_share, per_query, tie_rate
from gemma4vec.evaluation.ranking import (
    Progress,
    Ranker,
    Ranking,
    count_constant,
    no_progress,
    without_own_document,
)
from gemma4vec.evaluation.result import Result, check_out, save_result
from gemma4vec.evaluation.retrieve import EmbedderRanker, EmbeddingModel, Vectors
from gemma4vec.ledger.environment import versions
from gemma4vec.ledger.ledger import new_id, now
from gemma4vec.ledger.recording import check_lock, record_evaluation, record_look
from gemma4vec.ledger.records import belongs, run_around
from gemma4vec.ledger.runs import RunFolder

TOP = 10  # ranks kept with their scores, for reports


def evaluate(
    model: EmbeddingModel | Ranker,
    suite: RetrievalSuite,
    out: Path | None = None,
    *,
    name: str | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    depth: int = DEPTH,
    documents_MD: Vectors | None = None,
    progress: Progress = no_progress,
    run: RunFolder | None = None,
) -> Result:
    """Rank the suite's documents for every query, score the rankings, and write the result to `out`.

    The ledger is told of every look, also where nothing is written (docs/ledger.md).

    Args:
        model: an embedder, or anything with `rank` such as `Bm25Model`.
        suite: queries, documents and judgments.
        out: folder for metrics.json, per_query.parquet and top.parquet; None writes nothing.
        name: what the result calls the model, such as "trained"; None takes the model's own name.
        metrics: names that `evaluation.metrics` knows.
        depth: documents per query that count.
        documents_MD: the corpus's vectors, where the caller has them already.
        progress: called as `progress(stage, done, total)`.
        run: that the model comes from; by default the one that `out` lies in.

    Raises:
        InputError: an unknown metric, `out` holds something else, or the suite is locked.
        WorkError: vectors that are not finite or not of unit length; a disk that is full.
    """
    if out is not None:
        check_out(out)
    started = time.perf_counter()
    ranker = model if isinstance(model, Ranker) else EmbedderRanker(model, documents_MD)
    described = _describe_suite(suite)
    owner = belongs(name or ranker.name, run or (run_around(out) if out is not None else None))
    check_lock(suite.name, described["fingerprint"], owner["recipe_id"])
    ranking = _ranking(ranker, suite, depth, progress)
    scores = per_query(ranking.indices, ranking.scores, suite.query_ids, suite.corpus_ids, suite.qrels, metrics=metrics)
    by_query = {
        query_id: {metric: float(values_N[row]) for metric, values_N in scores.items()}
        for row, query_id in enumerate(suite.query_ids)
    }
    settings = {
        "model": ranker.describe(),
        "model_fingerprint": ranker.fingerprint,
        "suite": described,
        "ranking": _describe_ranking(ranking, suite, depth),
        "seconds": {**ranking.seconds, "total": time.perf_counter() - started},
        "versions": versions(),
        "created": now(),
        "look": new_id(),
        "run": owner,
    }
    result = Result(name or ranker.name, suite.name, {suite.name: by_query}, settings)
    record_look(result.model, result.suite, settings, result.metrics)
    if out is not None:
        save_result(result, out, _top_rows(ranking, suite))
        record_evaluation(out)
    return result


def _ranking(ranker: Ranker, suite: RetrievalSuite, depth: int, progress: Progress) -> Ranking:
    """The ranking that is scored: without the query's own document where the suite says so."""
    excluded = 1 if suite.exclude_identical_ids else 0
    ranking = ranker.rank(suite, depth + excluded, progress)
    return without_own_document(ranking, suite.query_ids, suite.corpus_ids, depth) if excluded else ranking


def _describe_suite(suite: RetrievalSuite) -> dict[str, Any]:
    """What identifies the suite's contents, and its size."""
    return {
        "fingerprint": suite.fingerprint,
        "role": suite.role,
        "tokens": "code" if suite.code else "text",
        "exclude_identical_ids": suite.exclude_identical_ids,
        **suite.counts,
        "documents": len(suite.corpus),
        "queries": len(suite.queries),
    }


def _describe_ranking(ranking: Ranking, suite: RetrievalSuite, depth: int) -> dict[str, Any]:
    """How far the scores can be trusted: ties, missing judgments, constant scores."""
    constant = count_constant(ranking)
    return {
        "depth": depth,
        "tie_rate@10": tie_rate(ranking.scores, ranking.indices),
        "judged@10": judged_share(ranking.indices, suite.query_ids, suite.corpus_ids, suite.qrels),
        "queries_without_documents": int(np.count_nonzero((ranking.indices < 0).all(axis=1))),
        "queries_with_constant_scores": constant,
        "degenerate": constant > len(suite.queries) / 2,
    }


def _top_rows(ranking: Ranking, suite: RetrievalSuite) -> list[dict[str, Any]]:
    """The first ranks of every query as rows of top.parquet."""
    return [
        {"query_id": query_id, "rank": rank + 1, "doc_id": suite.corpus_ids[index], "score": float(score)}
        for row, query_id in enumerate(suite.query_ids)
        for rank, (index, score) in enumerate(
            zip(ranking.indices[row, :TOP].tolist(), ranking.scores[row, :TOP].tolist(), strict=True)
        )
        if index >= 0
    ]
