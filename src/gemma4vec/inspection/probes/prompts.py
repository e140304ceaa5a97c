"""Prompts: the same queries and documents with other prompts than the model's own.

Where others, or none, score clearly higher, the model's own prompts were lost or are wrong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemma4vec.inspection.geometry.dimensions import rank_sample
from gemma4vec.inspection.probes.measured import Floats, Measure, gain
from gemma4vec.inspection.probes.registry import LEAST, MOST, Material
from gemma4vec.text.prompts import BY_NAME, Document, Prompts
from gemma4vec.text.text_embedder import TextEmbedder

OTHERS = 300  # documents beside the right ones


def prompt_measures(model: TextEmbedder, material: Material) -> list[Measure]:
    """What each other setting gains in nDCG@10 over the model's own prompts, among a sample of documents.

    Returns:
        One figure a setting; none with too few queries.
    """
    suite, rows = material.suite, list(material.rows[:MOST])
    if len(rows) < LEAST:
        return []
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    right = {place[key] for row in rows for key, grade in suite.qrels[suite.query_ids[row]].items() if key in place}
    drawn = material.generator("prompts").permutation(len(suite.corpus))[:OTHERS].tolist()
    pool = sorted(right | set(drawn))
    queries, documents = [suite.queries[row] for row in rows], [suite.corpus[at] for at in pool]

    ids, kept = [suite.query_ids[row] for row in rows], [suite.corpus_ids[at] for at in pool]

    def scored(queries_ND: Any, documents_MD: Any) -> Floats:
        return rank_sample(np.asarray(queries_ND), np.asarray(documents_MD), ids, kept, suite.qrels)[1]

    own_N = scored(model.encode_query(queries), model.encode_document(documents))
    known = {role: text for role, text in (model.describe().get("prompts") or {}).items() if text}
    settings = {
        name: prompts
        for name, prompts in BY_NAME.items()
        if {role: text for role, text in prompts.as_dict().items() if text} != known
    }
    found = []
    for name, prompts in settings.items():
        other_N = scored(*_encoded(model, prompts, queries, documents))
        label = "without prompts" if name == "none" else f"with the prompts {name}"
        found.append(gain("prompts", label, other_N, own_N, material.seed))
    return found


def _encoded(model: TextEmbedder, prompts: Prompts, queries: Sequence[str], documents: Sequence[Document]) -> Any:
    """Vectors with these prompts; documents with a title have it within the text, so that one prompt serves all."""
    untitled = prompts.for_document(Document("")).prompt
    texts = [f"{one.title} {one.text}" if one.title else one.text for one in documents]
    return model.encode(list(queries), prompts.query), model.encode(texts, untitled)
