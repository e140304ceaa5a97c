"""Documents that nobody judged and that may be right: above the right ones by several models, or near copies of them.

Queries of the open half alone. Agreement of models that were trained alike is weaker than it looks, so somebody
reads the queue, and the share of right ones in a random sample of it is the flag's precision (`draws`).

Legend: N queries.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.inspection.labels.bounds import Bounds, ndcg_bounds
from gemma4vec.inspection.labels.draws import Pair
from gemma4vec.inspection.reading import Reading
from gemma4vec.inspection.shingles import NEARLY_EQUAL, Shingles

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

    @property
    def pair(self) -> Pair:
        """Its ids."""
        return self.query_id, self.doc_id

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


def score_bounds(
    suite: RetrievalSuite, reading: Reading, open_N: npt.NDArray[np.bool_], may_be_right: Collection[Pair] | None = None
) -> dict[str, float]:
    """nDCG@10 if none or all of some unjudged documents are right, and the least and most of any choice of right ones.

    Means over open queries. `unjudged` is the number of such documents among the first ten of a query, as a mean.

    Args:
        suite: its judgments, such as overlaid ones, stay as they are.
        reading: the first ten of a model.
        open_N: queries that count.
        may_be_right: pairs that may be right; a pair that this model does not show among its first ten raises the best
            possible gain if it is right. All other unjudged documents are wrong. None: all unjudged ones among the
            first ten may be right, and no others.
    """
    asked: dict[str, set[str]] = {}
    for query, document in may_be_right or ():
        asked.setdefault(query, set()).add(document)
    bounds: list[Bounds] = []
    unjudged = 0
    for row in np.flatnonzero(open_N).tolist():
        judged = suite.qrels[suite.query_ids[row]]
        shown = [suite.corpus_ids[one] for one in reading.top[row].tolist() if one >= 0]
        wanted = asked.get(suite.query_ids[row], set()) - set(judged)
        ranks = [judged.get(key, None if may_be_right is None or key in wanted else 0) for key in shown]
        unjudged += sum(grade is None for grade in ranks)
        bounds.append(ndcg_bounds(ranks, list(judged.values()), elsewhere=len(wanted - set(shown))))
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
