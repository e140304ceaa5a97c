"""Rank metrics per query, computed by trec_eval's own code (pytrec_eval).

Conventions, as in trec_eval and BEIR: graded judgments are linear gains in nDCG (negative grades gain nothing), a
document is relevant from grade 1 (for Recall, MRR, MAP), equal scores are ordered by descending document id, scores are
compared as 32-bit floats. A query without retrieved documents scores 0.

`ndcg_binary@k` is nDCG with every grade from 1 taken as 1, as sentence-transformers computes it: another figure where
judgments are graded, so it has another name.

Legend: N queries, K ranks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytrec_eval

from gemma4vec.data.rows.judgments import is_usable_id, parse_grade
from gemma4vec.errors import InputError

DEFAULT_METRICS = ("ndcg@10", "recall@100", "mrr@10", "map")
DEPTH = 1000  # documents per query that count, as trec_eval and BEIR take them
QUERIES_PER_BLOCK = 256  # rankings turned into dictionaries at a time: bounds memory

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class _Measure:
    """Request to trec_eval, key of its answer, and the final step."""

    request: str
    key: str
    finish: Callable[[float], float]
    binary: bool = False


def _measure(metric: str) -> _Measure:
    """Translate `ndcg@k`, `ndcg_binary@k`, `recall@k`, `mrr@k`, `map`, `mrr` or `ndcg` for trec_eval."""
    match = re.fullmatch(r"(ndcg_binary|ndcg|recall|mrr|map)(?:@([1-9][0-9]*))?", metric)
    if match is None or (match[1] == "recall" and match[2] is None):
        raise InputError(
            f"unknown metric '{metric}': use ndcg@10, ndcg_binary@10, recall@100, mrr@10, map, or another cut"
        )
    name, cut = match[1], match[2]
    if name == "mrr":
        # trec_eval's reciprocal rank has no cut: drop what is ranked below it (halfway between two ranks: no rounding).
        lowest = 0.0 if cut is None else 1.0 / (int(cut) + 0.5)
        return _Measure("recip_rank", "recip_rank", lambda value: value if value > lowest else 0.0)
    binary = name == "ndcg_binary"
    name = "ndcg" if binary else name
    if cut is None:
        return _Measure(name, name, lambda value: value, binary)
    family = {"ndcg": "ndcg_cut", "recall": "recall", "map": "map_cut"}[name]
    return _Measure(f"{family}.{cut}", f"{family}_{cut}", lambda value: value, binary)


def per_query(
    ranking_NK: Ints,
    scores_NK: npt.NDArray[np.floating],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, npt.NDArray[np.float64]]:
    """Score every query's ranking.

    Args:
        ranking_NK: positions in `document_ids`; -1 is "nothing retrieved". The order within a row is ignored: as in
            trec_eval, the scores (as 32-bit floats) and document ids determine it.
        scores_NK: the scores, finite for retrieved documents.
        query_ids: id of each row, each with judgments in `qrels`.
        document_ids: ids that `ranking_NK` points into.
        qrels: query id -> document id -> grade.
        metrics: names such as "ndcg@10", "recall@100", "mrr@10", "map".

    Returns:
        metric -> float64[N] in the order of `query_ids`.

    Raises:
        InputError: an unknown metric; an id that trec_eval cannot take; a query without judgments, or a grade that is
            not a whole number or too high.
        ValueError: shapes that do not fit, or a score that is not finite.
    """
    if ranking_NK.shape != scores_NK.shape or ranking_NK.shape[:1] != (len(query_ids),):
        raise ValueError(
            f"ranking {ranking_NK.shape}, scores {scores_NK.shape} and {len(query_ids)} queries do not fit"
        )
    if not np.isfinite(scores_NK[ranking_NK >= 0]).all():
        raise ValueError("a retrieved document's score is not finite")
    measures = {metric: _measure(metric) for metric in metrics}
    _check_ids("query", query_ids)
    _check_ids("document", document_ids)
    requests = {
        binary: {measure.request for measure in measures.values() if measure.binary == binary}
        for binary in (False, True)
    }
    values: dict[str, npt.NDArray[np.float64]] = {metric: np.zeros(len(query_ids)) for metric in metrics}
    for start in range(0, len(query_ids), QUERIES_PER_BLOCK):
        rows = range(start, min(start + QUERIES_PER_BLOCK, len(query_ids)))
        graded = {query_ids[row]: _grades(query_ids[row], qrels) for row in rows}
        run = {query_ids[row]: _as_run(ranking_NK[row], scores_NK[row], document_ids) for row in rows}
        scored = {
            binary: pytrec_eval.RelevanceEvaluator(_binary(graded) if binary else graded, wanted).evaluate(run)
            for binary, wanted in requests.items()
            if wanted
        }
        for metric, measure in measures.items():
            for row in rows:
                values[metric][row] = measure.finish(scored[measure.binary][query_ids[row]][measure.key])
    return values


def _check_ids(what: str, ids: Sequence[str]) -> None:
    """Refuse ids on which trec_eval would crash or which it would cut."""
    bad = next((key for key in ids if not is_usable_id(key)), None)
    if bad is not None:
        raise InputError(f"the {what} id {bad!a} has a lone surrogate or a NUL character; give the {what} another id")


def _grades(query: str, qrels: Qrels) -> dict[str, int]:
    """The query's grades as trec_eval takes them: those below 0 are 0, which gains as little."""
    judged = qrels.get(query)
    if not judged:
        raise InputError(f"query {query!r} has no judgments, so that it cannot be scored; leave it out")
    where = f"judgments of query {query!r}"
    _check_ids("document", list(judged))
    return {key: max(0, parse_grade(grade, where)) for key, grade in judged.items()}


def _binary(qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Reduce judgments to relevant or not."""
    return {query: {key: int(grade >= 1) for key, grade in judged.items()} for query, judged in qrels.items()}


def _as_run(ranking_K: Ints, scores_K: npt.NDArray[np.floating], document_ids: Sequence[str]) -> dict[str, float]:
    """Convert one query's ranking to pytrec_eval's form."""
    kept = ranking_K >= 0
    scores = scores_K[kept].astype(np.float32).tolist()
    return {document_ids[index]: score for index, score in zip(ranking_K[kept].tolist(), scores, strict=True)}


def tie_rate(scores_NK: Floats, ranking_NK: Ints, cut: int = 10) -> float:
    """Return the share of queries where a tie decides something in the top `cut`.

    Two neighbors among ranks 1 to `cut` + 1 then have equal 32-bit scores, so the document id decided their order or
    the document at rank `cut`. The rate is high in low precision; such a score depends on ids, not on the model. Rows
    must be sorted by falling score.
    """
    scores = scores_NK[:, : cut + 1].astype(np.float32)
    both = ranking_NK[:, 1 : cut + 1] >= 0
    tied = (scores[:, 1:] == scores[:, :-1]) & both
    return float(tied.any(axis=1).mean()) if len(scores) else 0.0


def judged_share(
    ranking_NK: Ints, query_ids: Sequence[str], document_ids: Sequence[str], qrels: Qrels, cut: int = 10
) -> float:
    """Return the share of documents in the top `cut` that have a judgment of any grade (judged@10).

    If it is low, the score mostly counts unjudged documents as wrong. Rows must be sorted by falling score.
    """
    judged = retrieved = 0
    for row, query_id in enumerate(query_ids):
        top = [document_ids[index] for index in ranking_NK[row, :cut].tolist() if index >= 0]
        retrieved += len(top)
        judged += sum(document_id in qrels[query_id] for document_id in top)
    return judged / retrieved if retrieved else 0.0
