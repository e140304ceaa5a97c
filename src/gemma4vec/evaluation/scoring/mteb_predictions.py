"""Scores of single items from mteb's saved predictions; mteb's own results are means only.

Predictions are `{subset: {split: ...}}` in `TASK_predictions.json`; the rest depends on the type of task.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemma4vec.errors import WorkError
from gemma4vec.evaluation.results.task_scores import Items
from gemma4vec.evaluation.scoring.metrics import per_query


def retrieval_items(
    predictions: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Sequence[str],
    *,
    exclude_identical_ids: bool = False,
) -> Items:
    """Score every query with a positive judgment by trec_eval, from {query: {document: score}}."""
    queries = [query for query, judged in qrels.items() if max(judged.values(), default=0) >= 1]
    documents = sorted({document for query in queries for document in predictions.get(query, {})})
    place = {document: number for number, document in enumerate(documents)}
    depth = max((len(predictions.get(query, {})) for query in queries), default=0)
    indices_NK = np.full((len(queries), depth), -1, np.int64)
    scores_NK = np.full((len(queries), depth), -np.inf, np.float32)
    for row, query in enumerate(queries):
        kept = [
            (place[document], score)
            for document, score in predictions.get(query, {}).items()
            if not (exclude_identical_ids and document == query)
        ]
        for column, (index, score) in enumerate(kept):
            indices_NK[row, column], scores_NK[row, column] = index, score
    values = per_query(indices_NK, scores_NK, queries, documents, qrels, metrics)
    return {
        query: {metric: float(values_N[row]) for metric, values_N in values.items()}
        for row, query in enumerate(queries)
    }


def pair_items(predictions: Mapping[str, Any], gold: Sequence[float]) -> Items:
    """Return cosine and judgment of every pair, for STS and pair classification."""
    cosines = predictions["cosine_scores"]
    if len(cosines) != len(gold):
        raise WorkError(f"mteb saved {len(cosines)} similarities for {len(gold)} pairs; evaluate again")
    return {
        str(number): {"similarity": float(cosine), "gold": float(value)}
        for number, (cosine, value) in enumerate(zip(cosines, gold, strict=True), start=1)
    }


def classification_items(predictions: Sequence[Sequence[Any]], labels: Sequence[Any]) -> Items:
    """Return for every text the share of experiments that predicted its label; the mean is mteb's mean accuracy."""
    if any(len(experiment) != len(labels) for experiment in predictions):
        raise WorkError("mteb's cross-validation predicts each text in one fold only; this task cannot be read back")
    right = np.mean([[given == label for given, label in zip(one, labels, strict=True)] for one in predictions], axis=0)
    return {str(number): {"accuracy": float(share)} for number, share in enumerate(right, start=1)}


def clustering_items(scores: Mapping[str, Any]) -> Items:
    """Return the V-measure of each of mteb's clusterings; single texts have no score."""
    by_level = scores.get("v_measures") or {}
    levels = by_level if isinstance(by_level, Mapping) else {"all": by_level}
    found = {
        f"{level} {number}": {"v_measure": float(value)}
        for level, values in levels.items()
        for number, value in enumerate(values, start=1)
    }
    return found or {"all": {"v_measure": float(scores["v_measure"])}}
