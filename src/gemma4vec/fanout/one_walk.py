"""The walk of one query, to be looked at.

Shapes: M documents, d dimensions.
"""

from typing import Any

import numpy as np

from gemma4vec.fanout.setting import Choices
from gemma4vec.fanout.walk import Vectors, angle_between, slerp, step_angles
from gemma4vec.fanout.writers import Writer
from gemma4vec.retrieval.exact import search
from gemma4vec.text.text_embedder import TextEmbedder


def walk_query(
    embedder: TextEmbedder, writer: Writer, choices: Choices, query: str, to: str | None, documents_Md: Vectors | None
) -> dict[str, Any]:
    """Steps where the text changes: angle, text, its cosine to the query and to the target.

    Args:
        embedder: the model.
        writer: texts for vectors.
        choices: steps and feedback.
        query: where the walk begins.
        to: text (read as a document) where it ends, or None: the mean of the query's first hits.
        documents_Md: where hits are looked for; needed without `to`.

    Raises:
        InputError: query and target have equal or opposite vectors.
    """
    start_d = embedder.encode_query([query])[0]
    if to is not None:
        end_d = embedder.encode_document([to])[0]
    else:
        assert documents_Md is not None
        hits = search(start_d[None], documents_Md, min(choices.feedback, len(documents_Md))).indices[0]
        mean_d = documents_Md[hits[hits >= 0]].mean(axis=0)
        end_d = np.asarray(mean_d / np.linalg.norm(mean_d), dtype=np.float32)
    whole = angle_between(start_d, end_d)
    angles = step_angles(whole, choices.step_degrees, choices.points)
    texts = writer.write(slerp(start_d, end_d, angles))
    vectors = embedder.encode_query(texts)
    steps = [
        {
            "degrees": float(np.degrees(angle)),
            "text": text,
            "to_query": float(vector_d @ start_d),
            "to_target": float(vector_d @ end_d),
        }
        for number, (angle, text, vector_d) in enumerate(zip(angles, texts, vectors, strict=True))
        if number == 0 or text != texts[number - 1]
    ]
    return {"degrees": float(np.degrees(whole)), "points": len(angles), "steps": steps}
