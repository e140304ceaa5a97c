"""Queries that a suggester has not seen: neither they nor their documents were in its training pairs."""

from dataclasses import replace

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.ledger.suite_contents import split_order
from gemma4vec.model.suggester.suggester_folder import SuggesterFacts
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import words_key

FEWEST = 8  # queries below which no figure means anything


def document_key(document: Document) -> str:
    """The name of a document in training pairs: a hash of its words, the same in every sample of a suite."""
    return words_key(f"{document.title or ''} {document.text}")


def drop_walked(suite: RetrievalSuite, facts: SuggesterFacts) -> tuple[RetrievalSuite, int]:
    """(the suite without queries that the suggester learned from, their number).

    A query is left out if it was in a training pair, or if one of its relevant documents was the target of one.

    Raises:
        InputError: fewer than 8 queries would be left.
    """
    queries, documents = set(facts.queries), set(facts.documents)
    keys = {key: document_key(one) for key, one in zip(suite.corpus_ids, suite.corpus, strict=True)}

    def is_new(query_id: str, query: str) -> bool:
        relevant = (keys.get(key) for key, grade in suite.qrels[query_id].items() if grade > 0)
        return words_key(query) not in queries and not any(key in documents for key in relevant)

    kept = [row for row, pair in enumerate(zip(suite.query_ids, suite.queries, strict=True)) if is_new(*pair)]
    left_out = len(suite.queries) - len(kept)
    if len(kept) < FEWEST:
        raise InputError(
            f"--suggester: it learned from {left_out} of the {len(suite.queries)} queries of {suite.name}, or from "
            f"their documents; {len(kept)} are left, give a suite with at least {FEWEST} others"
        )
    if not left_out:
        return suite, 0
    ids = [suite.query_ids[row] for row in kept]
    smaller = replace(
        suite,
        name=f"{suite.name}-{len(kept)}-never-walked",
        kind="compact-retrieval",
        query_ids=ids,
        queries=[suite.queries[row] for row in kept],
        qrels={key: suite.qrels[key] for key in ids},
        halves=suite.halves or split_order(suite.fingerprint, suite.query_ids),
    )
    return smaller, left_out
