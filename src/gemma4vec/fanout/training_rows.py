"""Training rows from walks: each kept text as a query of the document that its walk went to.

The rows are ours (`data.rows`), or records in the published form of query suggestions (Adolphs et al., 2022:
an original query and its variants, each with the documents that it finds).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from gemma4vec.data.rows.rows import Row
from gemma4vec.fanout.methods import walk_points, write_walks
from gemma4vec.fanout.never_walked import document_key
from gemma4vec.fanout.setting import Report, Setting
from gemma4vec.fanout.suggestions import Suggestions, keep_texts
from gemma4vec.text.prompts import Document

Target = Literal["gold", "prf"]
BLOCK = 32
TOP = 10  # documents of a record
TITLES = 5  # of a pair; a suggester reads as many of them as its recipe says


def walk_suite(
    setting: Setting, target: Target, report: Report | None = None
) -> Iterator[tuple[int, list[int], Suggestions]]:
    """(query's number, documents that its walk went to, kept texts), block by block, for queries with a target."""
    golds, width = setting.gold, setting.queries_Qd.shape[1]
    count = len(setting.suite.queries)
    for start in range(0, count, BLOCK):
        rows = range(start, min(start + BLOCK, count))
        aims = [golds[row][:1] if target == "gold" else setting.own_rankings[row, :1].tolist() for row in rows]
        points = []
        for row, aim in zip(rows, aims, strict=True):
            end_d = setting.documents_Md[aim[0]] if target == "gold" and aim else setting.centroids[row]
            points.append(walk_points(setting, row, end_d) if aim else np.zeros((0, width), np.float32))
        kept = keep_texts(setting, write_walks(setting, points), rows)
        yield from zip(rows, aims, kept, strict=True)
        if report is not None:
            report("walks", rows.stop, count)


def as_rows(setting: Setting, row: int, aim: Sequence[int], found: Suggestions) -> list[Row]:
    """A training row for each kept text; rows of one query are of one group."""
    documents = [setting.suite.corpus[place] for place in aim]
    return [Row(text, documents, task="fanout", group=setting.suite.query_ids[row]) for text in found.texts]


def as_pairs(setting: Setting, row: int, aim: Sequence[int], found: Suggestions) -> list[Row]:
    """Pairs for a suggester (task `suggestion`): the query, the titles of its first hits, and each kept text."""
    titles = "\n".join(setting.titles(row, TITLES)) or None
    group = document_key(setting.suite.corpus[aim[0]]) if aim else None
    query = setting.suite.queries[row]
    return [Row(query, [Document(text, titles)], task="suggestion", group=group) for text in found.texts]


def as_record(setting: Setting, row: int, found: Suggestions) -> dict[str, Any]:
    """A record in the published form."""

    def documents(vector_d: np.ndarray, ranking: np.ndarray) -> list[dict[str, Any]]:
        places = [int(place) for place in ranking[:TOP] if place >= 0]
        return [
            {
                "doc_id": setting.suite.corpus_ids[place],
                "score": round(float(vector_d @ setting.documents_Md[place]), 6),
            }
            for place in places
        ]

    variants = [
        {"query": text, "documents": documents(vector_d, ranking)}
        for text, vector_d, ranking in zip(found.texts, found.vectors_Sd, found.rankings, strict=True)
    ]
    own = documents(setting.queries_Qd[row], setting.own_rankings[row])
    return {"original": {"query": setting.suite.queries[row], "documents": own}, "variants": variants}
