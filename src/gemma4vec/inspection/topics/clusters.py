"""Topics of a suite's queries beside each other: how many queries each has, and its gap on the open half.

Groups that "fail" are luck until shown otherwise: p is that of the largest gap over all topics (max-T).

Legend: N queries.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.inspection.predicates import TOPIC, topic_words
from gemma4vec.inspection.topics.space import TopicSpace
from gemma4vec.statistics.slices.max_t import max_t

SMALLEST = 10  # queries of the open half in a topic that is tested
Floats = npt.NDArray[np.float64]


def cluster_queries(
    suite: RetrievalSuite,
    space: TopicSpace | str,
    values_N: Floats,
    open_N: npt.NDArray[np.bool_],
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The contents of `clusters.json`.

    Args:
        space: the frozen space, or why there is none.
        values_N: of every query, such as differences from BM25; only those of the open half are used.
        open_N: queries of the open half, bool[N].
    """
    if isinstance(space, str):
        return {"clusters": [], "queries": {}, "note": space}
    label_N = space.labels(suite.queries)
    masks = [(label_N == cluster) & open_N for cluster in range(len(space.names))]
    testable = [at for at, mask in enumerate(masks) if SMALLEST <= mask.sum() <= open_N.sum() - SMALLEST]
    tests = {}
    if testable and np.ptp(values_N[open_N]) > 0.0:
        tested = max_t(
            values_N[open_N], np.array([masks[at][open_N] for at in testable]), permutations=permutations, seed=seed
        )
        tests = dict(zip(testable, tested, strict=True))
    found = []
    for cluster, name in enumerate(space.names):
        test = tests.get(cluster)
        told = {"inside": test.inside, "outside": test.outside, "gap": test.gap} if test is not None else {}
        p = {"p": test.p, "p_max_t": test.p_max_t} if test is not None else {}
        members = label_N == cluster
        found.append(
            {
                "cluster": cluster,
                "words": topic_words(name),
                "rule": f"{TOPIC} is {space.rule_value(cluster)}",
                "n": int((members & open_N).sum()),
                "n_sealed": int((members & ~open_N).sum()),
                **dict.fromkeys(("inside", "outside", "gap", "p", "p_max_t")),
                **told,
                **p,
            }
        )
    return {
        "clusters": found,
        "queries": {key: label for key, label in zip(suite.query_ids, label_N.tolist(), strict=True) if label >= 0},
        "space": f"TF-IDF of the documents, {space.axes.shape[1]} dimensions",
        "fingerprint": space.fingerprint,
        "tested": len(tests),
        "note": "",
    }
