"""The walk of one query, to be looked at.

Shapes: M documents, K points, d dimensions.
"""

from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.fanout.setting import Choices
from gemma4vec.fanout.walk import angle_between, changes, mean_direction, way
from gemma4vec.fanout.writers import Writer
from gemma4vec.retrieval.exact import search
from gemma4vec.retrieval.top_k import descending_id_rank
from gemma4vec.text.text_embedder import TextEmbedder


def walk_query(
    embedder: TextEmbedder, writer: Writer, choices: Choices, query: str, to: str | None, suite: RetrievalSuite | None
) -> dict[str, Any]:
    """Steps where the text changes: angle, text, its cosine to the query and to the target.

    Args:
        embedder: the model.
        writer: texts for vectors.
        choices: steps and feedback.
        query: where the walk begins.
        to: text (read as a document) where it ends, or None: the mean of the query's first hits.
        suite: where hits are looked for; needed without `to`.

    Raises:
        InputError: query and target have equal or opposite vectors.
    """
    start_d = embedder.encode_query([query])[0]
    if to is not None:
        end_d = embedder.encode_document([to])[0]
    else:
        assert suite is not None
        documents_Md = embedder.encode_document(suite.corpus)
        ranks = descending_id_rank(suite.corpus_ids)
        count = min(choices.feedback, len(documents_Md))
        hits = search(start_d[None], documents_Md, count, descending_id_rank=ranks).indices[0]
        end_d = mean_direction(documents_Md[hits[hits >= 0]])
    angles, points_Kd = way(start_d, end_d, choices.step_degrees, choices.points)
    written = writer.write(points_Kd)
    places = changes(written)
    texts = [written[place] for place in places]
    steps = [
        {
            "degrees": float(np.degrees(angles[place])),
            "text": text,
            "to_query": float(vector_d @ start_d),
            "to_target": float(vector_d @ end_d),
        }
        for place, text, vector_d in zip(places, texts, embedder.encode_query(texts), strict=True)
    ]
    return {"degrees": float(np.degrees(angle_between(start_d, end_d))), "points": len(angles), "steps": steps}
