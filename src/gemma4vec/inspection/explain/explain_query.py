"""Why a document stands above the right one, for one query: gap, BM25's words, each sentence's part, cut, hub.

Queries of the open half alone. Leaving a sentence out says what the score would be without it, not what the model
"looked at": sentences that say the same carry each other.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, no_progress
from gemma4vec.inspection.attributes import split_sentences, whole_text
from gemma4vec.inspection.inspect import steps_of
from gemma4vec.inspection.inspected import Subject
from gemma4vec.inspection.kinds import k_occurrence
from gemma4vec.inspection.probes.word_scores import WordScores
from gemma4vec.inspection.reading import Reading, read_model
from gemma4vec.inspection.token_counts import TokenCounter, token_counter
from gemma4vec.ledger.suite_access import check_choice
from gemma4vec.ledger.suite_halves import sealed_half, shown_half
from gemma4vec.retrieval.tokenize import choose_tokenizer
from gemma4vec.text.prompts import Document

SENTENCES = 60  # of a document that are left out one by one


@dataclass(frozen=True)
class SentencePart:
    """A sentence: its characters, and how much lower the score is without it."""

    start: int
    end: int
    worth: float


@dataclass(frozen=True)
class Explained:
    """One document beside the query.

    Attributes:
        why: "right" for the best right document, "above" for the first wrong one.
        rank: None beyond depth 1,000.
        score: the model's; `bm25`: BM25's.
        words: shared tokens with their part of BM25's score, largest first.
        tokens, read: of the whole document, and characters of the text that the model reads; None without a limit.
        k_occurrence: queries that have it among their first ten.
        sentences: none for a document of one sentence.
    """

    doc_id: str
    why: str
    rank: int | None
    score: float
    bm25: float
    words: dict[str, float]
    tokens: int | None
    read: int | None
    k_occurrence: int
    sentences: list[SentencePart]


def explain_query(
    subject: Subject, suite: RetrievalSuite, query_id: str, *, progress: Progress = no_progress
) -> dict[str, Any]:
    """Explain one query of the open half, as JSON values.

    Raises:
        InputError: a final suite, an unknown query or a sealed one, or a ranker without vectors.
    """
    check_choice("inspect explain shows single queries", suite)
    if isinstance(subject.model, Ranker):
        raise InputError(f"inspect explain leaves sentences out of vectors, and {subject.model.name} has none")
    if query_id not in suite.query_ids:
        raise InputError(f"{suite.name} has no query '{query_id}'; queries.parquet of an inspection lists them")
    row = suite.query_ids.index(query_id)
    sealed_N = sealed_half(suite)
    if sealed_N is not None and sealed_N[row]:
        raise InputError(f"query '{query_id}' is in the sealed half of {suite.name}; explain one of the open half")
    if not shown_half(suite)[row]:
        raise InputError(f"query '{query_id}' is in the sealed half of another suite that has it; explain another one")
    known = set(suite.corpus_ids)
    if not any(grade >= 1 and key in known for key, grade in suite.qrels[query_id].items()):
        raise InputError(f"the corpus of {suite.name} has no right document of query '{query_id}'; explain another one")
    steps = steps_of(subject, suite.fingerprint)
    reading = read_model(subject.model, suite, steps, run=subject.run, progress=progress)
    chosen = _chosen(reading, suite, row)
    counts_M = k_occurrence(reading.top, len(suite.corpus))
    scorer = WordScores(suite.corpus, choose_tokenizer([whole_text(one) for one in suite.corpus], code=suite.code))
    counter = token_counter(subject.model)
    found = [
        _explain(subject.model, suite, row, document, why, rank, int(counts_M[document]), scorer, counter)
        for document, why, rank in chosen
    ]
    right = next((one for one in found if one.why == "right"), None)
    above = next((one for one in found if one.why == "above"), None)
    return {
        "model": subject.as_json(),
        "suite": {"name": suite.name, "fingerprint": suite.fingerprint},
        "query_id": query_id,
        "query": suite.queries[row],
        "gap": None if right is None or above is None else right.score - above.score,
        "gap_of_bm25": None if right is None or above is None else right.bm25 - above.bm25,
        "documents": [asdict(one) for one in found],
    }


def _chosen(reading: Reading, suite: RetrievalSuite, row: int) -> list[tuple[int, str, int | None]]:
    """(document, why, rank) of the best right document and the first wrong one."""
    mine = (reading.query == row) & (reading.grade >= 1)
    ranks = np.where(reading.rank[mine] > 0, reading.rank[mine], np.iinfo(np.int64).max)
    right = reading.document[mine].tolist()
    best = int(np.argmin(ranks))
    found: list[tuple[int, str, int | None]] = [(right[best], "right", int(reading.rank[mine][best]) or None)]
    for place, document in enumerate(reading.top[row].tolist(), start=1):
        if document >= 0 and document not in right:
            return [*found, (document, "above" if found[0][2] is None or place < found[0][2] else "below", place)]
    return found


def _explain(
    model: Any,
    suite: RetrievalSuite,
    row: int,
    document: int,
    why: str,
    rank: int | None,
    occurrences: int,
    scorer: WordScores,
    counter: TokenCounter | None,
) -> Explained:
    query, text = suite.queries[row], suite.corpus[document]
    parts = split_sentences(text.text)[:SENTENCES]
    without = [_without(text, parts, at) for at in range(len(parts))] if len(parts) > 1 else []
    query_D = np.asarray(model.encode_query([query]), dtype=np.float64)[0]
    scores = np.asarray(model.encode_document([text, *without]), dtype=np.float64) @ query_D
    words = {token: scorer.score(token, text) for token in dict.fromkeys(scorer.tokenize(query))}
    return Explained(
        suite.corpus_ids[document],
        why,
        rank,
        float(scores[0]),
        scorer.score(query, text),
        dict(sorted(((token, value) for token, value in words.items() if value > 0.0), key=lambda one: -one[1])),
        None if counter is None else counter.count([text])[0],
        None if counter is None else characters_read(text, counter),
        occurrences,
        [
            SentencePart(start, start + len(sentence), float(scores[0] - scores[1 + at]))
            for at, (start, sentence) in enumerate(parts[: len(without)])
        ],
    )


def characters_read(document: Document, counter: TokenCounter) -> int:
    """Characters of the text that the model reads: the longest beginning within its limit."""
    if counter.count([document])[0] <= counter.limit:
        return len(document.text)
    low, high = 0, len(document.text)
    while low < high:
        middle = (low + high + 1) // 2
        if counter.count([Document(document.text[:middle], document.title)])[0] <= counter.limit:
            low = middle
        else:
            high = middle - 1
    return low


def _without(document: Document, parts: Sequence[tuple[int, str]], left_out: int) -> Document:
    """The document without one sentence."""
    start, sentence = parts[left_out]
    text = f"{document.text[:start]}{document.text[start + len(sentence) :].lstrip()}"
    return Document(text, document.title)
