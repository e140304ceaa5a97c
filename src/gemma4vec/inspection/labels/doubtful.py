"""Documents that nobody judged and that may be right: above the right ones by several models, or near copies of them.

Queries of the discovery half alone. Agreement of models that were trained alike is weaker than it looks, so a person
reads the queue, and the share of right ones among those read is the flag's precision.

Legend: N queries.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.inspection.labels.bounds import Bounds, ndcg_bounds
from gemma4vec.inspection.reading import Reading
from gemma4vec.inspection.shingles import NEARLY_EQUAL, Shingles
from gemma4vec.statistics.slices.lift import rate

METRIC = "ndcg@10"
AGREE = 2  # models
COMPARED = 10  # right documents of a query that near copies are looked for among


@dataclass(frozen=True)
class Doubtful:
    """One pair of the queue.

    Attributes:
        ranks: by model, where it shows the document above every right one.
        duplicate_of: the right document that it nearly equals, with their similarity; None if it does not.
    """

    query_id: str
    doc_id: str
    ranks: dict[str, int]
    duplicate_of: str | None
    similarity: float

    def as_json(self) -> dict[str, Any]:
        """For the queue."""
        return asdict(self)


def find_doubtful(suite: RetrievalSuite, readings: dict[str, Reading], open_N: npt.NDArray[np.bool_]) -> list[Doubtful]:
    """Unjudged pairs, near copies first, then those that most models show highest.

    Args:
        readings: of each model, by name.
        open_N: queries that may be shown.
    """
    shingles = Shingles(suite)
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    found: list[Doubtful] = []
    for row in np.flatnonzero(open_N).tolist():
        judged = suite.qrels[suite.query_ids[row]]
        right = [place[key] for key, grade in sorted(judged.items()) if grade >= 1 and key in place]
        above: dict[int, dict[str, int]] = {}
        for name, reading in readings.items():
            for rank, document in enumerate(reading.top[row].tolist(), start=1):
                if document in right:
                    break
                if document >= 0 and suite.corpus_ids[document] not in judged:
                    above.setdefault(document, {})[name] = rank
        for document, ranks in above.items():
            near = max(((shingles.similarity(document, one), -one) for one in right[:COMPARED]), default=(0.0, 0))
            copy = near[0] >= NEARLY_EQUAL
            if copy or len(ranks) >= AGREE:
                original = suite.corpus_ids[-near[1]] if copy else None
                found.append(Doubtful(suite.query_ids[row], suite.corpus_ids[document], ranks, original, near[0]))
    return sorted(
        found,
        key=lambda one: (one.duplicate_of is None, -len(one.ranks), sum(one.ranks.values()), one.query_id, one.doc_id),
    )


def score_bounds(suite: RetrievalSuite, reading: Reading, open_N: npt.NDArray[np.bool_]) -> dict[str, float]:
    """nDCG@10 if none or all of the unjudged among the first ten are right, and its bounds: means over open queries."""
    bounds: list[Bounds] = []
    unjudged = 0
    for row in np.flatnonzero(open_N).tolist():
        judged = suite.qrels[suite.query_ids[row]]
        ranks = [judged.get(suite.corpus_ids[one]) for one in reading.top[row].tolist() if one >= 0]
        unjudged += sum(grade is None for grade in ranks)
        bounds.append(ndcg_bounds(ranks, list(judged.values())))
    means = np.mean(bounds, axis=0)
    found = dict(zip(Bounds._fields, means.tolist(), strict=True))
    return {**found, "unjudged": unjudged / max(int(open_N.sum()), 1)}


def score_with(suite: RetrievalSuite, reading: Reading, open_N: npt.NDArray[np.bool_]) -> float:
    """nDCG@10 over open queries by the judgments of this suite (such as an overlaid one)."""
    rows = np.flatnonzero(open_N)
    ids = [suite.query_ids[row] for row in rows.tolist()]
    scores_N = per_query(
        reading.top[rows], reading.top_scores[rows], ids, suite.corpus_ids, suite.qrels, metrics=(METRIC,)
    )[METRIC]
    return float(scores_N.mean())


def flag_precision(flagged: Sequence[Doubtful], judged: dict[tuple[str, str], int]) -> dict[str, Any]:
    """The share of right ones among flagged pairs that a person read, with Wilson's interval."""
    read = [judged[pair] for one in flagged if (pair := (one.query_id, one.doc_id)) in judged]
    found = rate(sum(grade >= 1 for grade in read), len(read))
    return {"read": found.n, "right": found.hits, "precision": found.value, "low": found.low, "high": found.high}
