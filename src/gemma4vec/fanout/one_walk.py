"""The walk of one query, to be looked at.

Shapes: M documents, A targets, K points, T texts, d dimensions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.fanout.setting import Choices
from gemma4vec.fanout.walk import Vectors, angle_between, changes, mean_direction, way
from gemma4vec.fanout.writers import Writer
from gemma4vec.retrieval.exact import BLOCK, search
from gemma4vec.retrieval.top_k import descending_id_rank
from gemma4vec.text.text_embedder import TextEmbedder


def walk_query(
    embedder: TextEmbedder, writer: Writer, choices: Choices, query: str, to: str | None, suite: RetrievalSuite | None
) -> dict[str, Any]:
    """Walk from a query, as `walk_to` says.

    Args:
        embedder: the model.
        writer: texts for vectors.
        choices: steps and feedback.
        query: where the walk begins.
        to: text (read as a document) where it ends, or None: the mean of the query's first hits.
        suite: where hits are looked for; needed without `to`. Without it there are no ranks.

    Raises:
        InputError: query and target have equal or opposite vectors.
    """
    start_d = embedder.encode_query([query])[0]
    documents_Md = embedder.encode_document(suite.corpus) if suite is not None else None
    if to is not None:
        targets_Ad = embedder.encode_document([to])
    else:
        assert suite is not None and documents_Md is not None
        ranks = descending_id_rank(suite.corpus_ids)
        count = min(choices.feedback, len(documents_Md))
        hits = search(start_d[None], documents_Md, count, descending_id_rank=ranks).indices[0]
        targets_Ad = documents_Md[hits[hits >= 0]]
    return walk_to(embedder, writer, choices, start_d, targets_Ad, documents_Md)


def walk_to(
    embedder: TextEmbedder,
    writer: Writer,
    choices: Choices,
    start_d: Vectors,
    targets_Ad: Vectors,
    documents_Md: Vectors | None,
) -> dict[str, Any]:
    """Steps where the text changes.

    Args:
        embedder, writer, choices: as `walk_query` has them.
        start_d: the query's vector.
        targets_Ad: vectors of documents, whose mean direction is the target.
        documents_Md: where targets are ranked; None: there are no ranks.

    Returns:
        JSON values: `degrees` of the whole way, `points`, `rank` of the targets for the query itself, and `steps`, each
        with its angle (`degrees`), `text`, the text's cosine to the query, to the target and to the point that it was
        written for (`to_query`, `to_target`, `to_point`), and `rank`: of the nearest target for the text as a query.

    Raises:
        InputError: query and target have equal or opposite vectors.
    """
    end_d = targets_Ad[0] if len(targets_Ad) == 1 else mean_direction(targets_Ad)
    angles, points_Kd = way(start_d, end_d, choices.step_degrees, choices.points)
    written = writer.write(points_Kd)
    places = changes(written)
    texts_Td = embedder.encode_query([written[place] for place in places])
    asked_Td = np.concatenate([start_d[None], texts_Td])
    ranks = [None] * len(asked_Td) if documents_Md is None else rank_targets(asked_Td, targets_Ad, documents_Md)
    steps = [
        {
            "degrees": float(np.degrees(angles[place])),
            "text": written[place],
            "to_query": float(vector_d @ start_d),
            "to_target": float(vector_d @ end_d),
            "to_point": float(vector_d @ points_Kd[place]),
            "rank": rank,
        }
        for place, vector_d, rank in zip(places, texts_Td, ranks[1:], strict=True)
    ]
    whole = float(np.degrees(angle_between(start_d, end_d)))
    return {"degrees": whole, "points": len(angles), "rank": ranks[0], "steps": steps}


def rank_targets(asked_Td: Vectors, targets_Ad: Vectors, documents_Md: Vectors) -> list[int | None]:
    """Of each query the rank of its nearest target among the documents: one more than those that are nearer."""
    best_T = (asked_Td @ targets_Ad.T).max(axis=1)
    nearer_T: NDArray[np.int64] = np.zeros(len(asked_Td), dtype=np.int64)
    for start in range(0, len(documents_Md), BLOCK):
        scores_Tb = asked_Td @ np.asarray(documents_Md[start : start + BLOCK], dtype=np.float32).T
        # A target's own score may differ in its last bit from another product's.
        nearer_T += (scores_Tb > best_T[:, None] + _LAST_BITS).sum(axis=1)
    return [int(count) + 1 for count in nearer_T]


_LAST_BITS = 1e-6
