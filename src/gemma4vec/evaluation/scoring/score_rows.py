"""Held-out rows: the rank of the positive among the row's own negatives, or the loss.

Legend: C candidates of a row, P its positives, D dimensions, S different texts.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.evaluation.results.marks import REPEATED, count_repeated
from gemma4vec.evaluation.results.task_scores import TaskScores
from gemma4vec.evaluation.scoring.dense_ranker import check_unit
from gemma4vec.evaluation.scoring.ranking import Progress
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

Doubles = npt.NDArray[np.float64]
EQUAL = 1e-6  # similarities that differ by less count as ties


class _Vectors(NamedTuple):
    """Unit vectors of the rows' distinct texts."""

    queries: dict[str, Doubles]
    documents: dict[Document, Doubles]


def _score_rows(model: TextEmbedder, suite: RowSuite, *, progress: Progress) -> TaskScores:
    """Compute accuracy@1 and reciprocal rank of each row, or the loss of each row.

    Raises:
        WorkError: vectors that are not finite or not of unit length.
    """
    started = time.perf_counter()
    vectors = _encode(model, suite, progress)
    repeated = count_repeated(row.query for row in suite.rows)
    encoded = time.perf_counter()
    if suite.kind == "loss":
        losses = _losses(suite, vectors)
        items = {key: {"loss": loss} for key, loss in zip(suite.ids, losses, strict=True)}
        quality = {"temperature": suite.temperature, "block": suite.block, "degenerate": False, REPEATED: repeated}
    else:
        ranks = [_ranks(row, vectors) for row in suite.rows]
        items = {
            key: {"acc@1": float(np.mean(rank_P == 1)), "mrr": float(np.mean(1.0 / rank_P))}
            for key, (rank_P, _) in zip(suite.ids, ranks, strict=True)
        }
        tied = float(np.mean([ties for _, ties in ranks]))
        quality = {"tie_rate": tied, "degenerate": tied > 0.5, REPEATED: repeated}
    seconds = {"encode": encoded - started, "score": time.perf_counter() - encoded}
    return TaskScores(items, quality, seconds)


def _encode(model: TextEmbedder, suite: RowSuite, progress: Progress) -> _Vectors:
    """Encode every distinct text once."""
    queries = list(dict.fromkeys(row.query for row in suite.rows))
    documents = list(dict.fromkeys(document for row in suite.rows for document in (*row.pos, *row.neg)))
    queries_SD = model.encode_query(queries, progress=partial(progress, "queries"))
    check_unit(queries_SD, queries, f"query vectors of {model.name} on {suite.name}", model)
    documents_SD = model.encode_document(documents, progress=partial(progress, "documents"))
    names = [document.text for document in documents]
    check_unit(documents_SD, names, f"document vectors of {model.name} on {suite.name}", model)
    return _Vectors(
        dict(zip(queries, queries_SD.astype(np.float64), strict=True)),
        dict(zip(documents, documents_SD.astype(np.float64), strict=True)),
    )


def _ranks(row: Row, vectors: _Vectors) -> tuple[npt.NDArray[np.int64], bool]:
    """Return each positive's rank among the row's negatives, and whether one ties. Ties count against the model."""
    query_D = vectors.queries[row.query]
    positives = np.array([vectors.documents[document] @ query_D for document in row.pos])
    negatives = np.array([vectors.documents[document] @ query_D for document in row.neg])
    not_below = negatives[None, :] >= positives[:, None] - EQUAL
    tied = np.abs(negatives[None, :] - positives[:, None]) <= EQUAL
    return 1 + not_below.sum(axis=1), bool(tied.any())


def _losses(suite: RowSuite, vectors: _Vectors) -> list[float]:
    """Compute InfoNCE of each row: its first positive against the first positives of its block and its own negatives.

    A candidate that equals one of the row's own positives is not a negative. The last block may be shorter; a single
    remaining row joins the block before it.
    """
    starts = list(range(0, len(suite.rows), suite.block))
    if len(suite.rows) - starts[-1] == 1:
        starts.pop()
    stops = [*starts[1:], len(suite.rows)]
    return [
        _loss(row, suite.rows[start:stop], vectors, suite.temperature)
        for start, stop in zip(starts, stops, strict=True)
        for row in suite.rows[start:stop]
    ]


def _loss(row: Row, block: Sequence[Row], vectors: _Vectors, temperature: float) -> float:
    own = row.pos[0]
    others = [other.pos[0] for other in block if other is not row and other.pos[0] not in row.pos]
    candidates_CD = np.stack([vectors.documents[document] for document in (own, *others, *row.neg)])
    scores_C = candidates_CD @ vectors.queries[row.query] / temperature
    highest = scores_C.max()
    return float(highest + np.log(np.exp(scores_C - highest).sum()) - scores_C[0])
