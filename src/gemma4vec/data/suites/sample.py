"""Sample a smaller suite from a larger one: some queries, their judged documents, and further documents."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.ledger.suite_contents import split_order


def sample_suite(
    suite: RetrievalSuite,
    queries: int | None,
    documents: int | None,
    *,
    keep: Literal["judged", "relevant"] = "judged",
    seed: int = 0,
) -> RetrievalSuite:
    """Return a fixed sample, which depends on ids and `seed` but not on the order in the files.

    Fewer documents make a task easier, so a sample has its own name and is never compared with the whole suite. Its
    sealed queries are those that the whole suite seals.

    Args:
        suite: the suite to sample from.
        queries: number of queries; None keeps all.
        documents: number of documents in total, if the documents that must be kept are fewer; None keeps all.
        keep: which documents must be kept: all that are judged for the queries, or only the relevant ones. Use
            "relevant" for suites that judge hundreds of documents per query as not relevant.
        seed: another seed draws another sample.
    """
    kept_queries = set(_sample_ids(suite.query_ids, queries, seed))
    min_grade = 1 if keep == "relevant" else float("-inf")
    required = {key for query in kept_queries for key, grade in suite.qrels[query].items() if grade >= min_grade}
    remaining = max(0, (documents if documents is not None else len(suite.corpus_ids)) - len(required))
    if suite.units is not None:  # the other parts of what is judged: a whole is found by its best part
        required = {key for key, unit in zip(suite.corpus_ids, suite.units, strict=True) if unit in required}
        remaining = max(0, (documents if documents is not None else len(suite.corpus_ids)) - len(required))
    others = [document for document in suite.corpus_ids if document not in required]
    kept_documents = required | set(_sample_ids(others, remaining, seed))
    if len(kept_queries) == len(suite.query_ids) and len(kept_documents) >= len(suite.corpus_ids):
        return suite
    query_rows = [i for i, query in enumerate(suite.query_ids) if query in kept_queries]
    if suite.units is not None:
        kept_documents |= {
            unit for key, unit in zip(suite.corpus_ids, suite.units, strict=True) if key in kept_documents
        }
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
        units=None if suite.units is None else [suite.units[i] for i in corpus_rows],
        halves=suite.halves or split_order(suite.fingerprint, suite.query_ids),
    )


def _sample_ids(ids: Sequence[str], number: int | None, seed: int) -> list[str]:
    """Return the first `number` ids in an order that depends only on each id and the seed."""
    if number is None or number >= len(ids):
        return list(ids)
    salt = seed.to_bytes(8, "little") if seed else b""
    return sorted(ids, key=lambda key: hashlib.blake2b(key.encode("utf-8", "replace"), salt=salt).digest())[:number]
