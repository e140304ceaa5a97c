"""Sentence similarity: the cosine of each pair, to be compared with human judgments.

Both sentences are encoded as queries: neither is the other's document.

Legend: N pairs, S different sentences, D dimensions.
"""

import time
from functools import partial

import numpy as np

from gemma4vec.data.suites.sts import StsSuite
from gemma4vec.evaluation.results.marks import REPEATED, count_repeated
from gemma4vec.evaluation.results.task_scores import TaskScores
from gemma4vec.evaluation.scoring.dense_ranker import check_unit
from gemma4vec.evaluation.scoring.ranking import Progress
from gemma4vec.text.text_embedder import TextEmbedder


def _score_sts(model: TextEmbedder, suite: StsSuite, *, progress: Progress) -> TaskScores:
    """Compute the cosine of every pair in double precision, so that equal sentences tie at 1, and round it to fp32.

    Raises:
        WorkError: vectors that are not finite or not of unit length.
    """
    started = time.perf_counter()
    place = {text: number for number, text in enumerate(dict.fromkeys([*suite.first, *suite.second]))}
    vectors_SD = model.encode_query(list(place), progress=partial(progress, "sentences"))
    check_unit(vectors_SD, list(place), f"sentence vectors of {model.name} on {suite.name}", model)
    first_ND, second_ND = (
        vectors_SD[[place[text] for text in side]].astype(np.float64) for side in (suite.first, suite.second)
    )
    lengths_N = np.linalg.norm(first_ND, axis=1) * np.linalg.norm(second_ND, axis=1)
    similarity_N = (np.einsum("nd,nd->n", first_ND, second_ND) / lengths_N).astype(np.float32)
    # Differences in the last bits are rounding: a collapsed model must not score on them.
    degenerate = bool(np.ptp(similarity_N) <= 1e-6)
    if degenerate:
        similarity_N = np.full_like(similarity_N, similarity_N.mean())
    items = {
        key: {"similarity": float(similarity), "gold": float(gold)}
        for key, similarity, gold in zip(suite.ids, similarity_N, suite.gold, strict=True)
    }
    ties = 1.0 - len(np.unique(similarity_N)) / len(similarity_N)
    repeated = count_repeated(zip(suite.first, suite.second, strict=True))
    quality = {"tie_rate": ties, "texts_as": "queries", "degenerate": degenerate, REPEATED: repeated}
    return TaskScores(items, quality, {"encode_sentences": time.perf_counter() - started})
