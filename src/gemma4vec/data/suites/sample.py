"""A smaller suite from a larger one: some queries, their judged documents, and others up to a number."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gemma4vec.data.suites.retrieval import RetrievalSuite


def sample_suite(
    suite: RetrievalSuite,
    queries: int | None,
    documents: int | None,
    *,
    keep: Literal["judged", "relevant"] = "judged",
    seed: int = 0,
) -> RetrievalSuite:
    """A fixed sample: the same ids and `seed` always give the same sample, whatever their order in the files.

    Keeps `queries` queries, every document judged for them, and others up to `documents` in all. Where hundreds of
    documents a query are judged as not relevant, `keep="relevant"` treats these as others. Fewer documents make a task
    easier, so a sample has a name of its own and is never compared with the whole.
    """
    kept_queries = set(_first(suite.query_ids, queries, seed))
    least = 1 if keep == "relevant" else float("-inf")
    certain = {key for query in kept_queries for key, grade in suite.qrels[query].items() if grade >= least}
    room = max(0, (documents if documents is not None else len(suite.corpus_ids)) - len(certain))
    others = [document for document in suite.corpus_ids if document not in certain]
    kept_documents = certain | set(_first(others, room, seed))
    if len(kept_queries) == len(suite.query_ids) and len(kept_documents) >= len(suite.corpus_ids):
        return suite
    query_rows = [i for i, query in enumerate(suite.query_ids) if query in kept_queries]
    corpus_rows = [i for i, document in enumerate(suite.corpus_ids) if document in kept_documents]
    return replace(
        suite,
        kind="compact-retrieval",
        name=f"{suite.name}-{len(query_rows)}x{len(corpus_rows)}" + (f"-seed{seed}" if seed else ""),
        corpus_ids=[suite.corpus_ids[i] for i in corpus_rows],
        corpus=[suite.corpus[i] for i in corpus_rows],
        query_ids=[suite.query_ids[i] for i in query_rows],
        queries=[suite.queries[i] for i in query_rows],
        qrels={
            suite.query_ids[i]: {
                key: grade for key, grade in suite.qrels[suite.query_ids[i]].items() if key in kept_documents
            }
            for i in query_rows
        },
    )


def _first(ids: Sequence[str], number: int | None, seed: int) -> list[str]:
    """The first `number` ids in an order that depends on each id and the seed alone."""
    if number is None or number >= len(ids):
        return list(ids)
    salt = seed.to_bytes(8, "little") if seed else b""
    return sorted(ids, key=lambda key: hashlib.blake2b(key.encode("utf-8", "replace"), salt=salt).digest())[:number]
