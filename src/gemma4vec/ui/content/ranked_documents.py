"""What a query page shows of documents: both models' first ten, where the right ones are, and words in common."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.inspection.steps import known_step
from gemma4vec.ui.content.stored_inspections import StoredInspection
from gemma4vec.ui.content.suite_texts import Texts

CHARACTERS = 1500
_PIECES = re.compile(r"\w+|\W+")


@dataclass(frozen=True)
class Shown:
    """One document.

    Attributes:
        rank: from 1; None for a right document that was not found.
        grade: of the judgment; None if nobody judged it.
        pieces: (text, whether it is a word of the query); empty where the text is gone.
        tokens, cut_at: its length, and where the model stops reading if it does.
        occurrences: among the first ten of how many queries.
    """

    id: str
    rank: int | None
    score: float | None
    grade: int | None
    pieces: list[tuple[str, bool]]
    more: int
    tokens: int | None
    cut_at: int | None
    occurrences: int | None


def first_ten(
    found: StoredInspection, side: str, row: int, query_id: str, texts: Texts
) -> list[tuple[str, float]] | None:
    """(document, score) of a model's first ranks; None where the inspection's steps are gone from the cache.

    Args:
        side: "model" or "against". row: of the query among the suite's queries.
    """
    if texts.suite is None or side not in found.about["steps"]:
        return None
    stored = known_step(str(found.about["steps"][side]), "reading")
    if stored is None or len(stored["top"]) != len(texts.suite.query_ids) or texts.suite.query_ids[row] != query_id:
        return None
    ids = texts.suite.corpus_ids
    return [
        (ids[int(place)], float(score))
        for place, score in zip(stored["top"][row], stored["top_scores"][row], strict=True)
        if 0 <= place < len(ids)
    ]


def describe(
    ranked: Sequence[tuple[str, int | None, float | None]],
    grades: Mapping[str, int],
    stored: Mapping[str, Mapping[str, Any]],
    texts: Texts,
    query: str,
) -> list[Shown]:
    """The documents of one list.

    Args:
        ranked: (id, rank, score).
        grades: id -> grade of the query's judged documents.
        stored: id -> row of documents.parquet.
    """
    words = set(texts.tokenize(query)) if texts.tokenize is not None else set()
    return [_describe(*one, grades.get(one[0]), stored.get(one[0], {}), texts, words) for one in ranked]


def _describe(
    key: str,
    rank: int | None,
    score: float | None,
    grade: int | None,
    stored: Mapping[str, Any],
    texts: Texts,
    words: set[str],
) -> Shown:
    document = texts.document(key)
    whole = "" if document is None else f"{document.title}\n{document.text}" if document.title else document.text
    pieces = mark_words(whole[:CHARACTERS], words, texts)
    return Shown(
        key,
        rank,
        score,
        grade,
        pieces,
        max(0, len(whole) - CHARACTERS),
        stored.get("tokens"),
        stored.get("cut_at"),
        stored.get("k_occurrence"),
    )


def mark_words(text: str, words: set[str], texts: Texts) -> list[tuple[str, bool]]:
    """Cut a text into runs of (text, whether BM25 sees these words in the query too)."""
    tokenize = texts.tokenize
    runs: list[tuple[str, bool]] = []
    for piece in _PIECES.findall(text):
        marked = bool(words) and tokenize is not None and piece.strip() != "" and not words.isdisjoint(tokenize(piece))
        if runs and runs[-1][1] == marked:
            runs[-1] = (runs[-1][0] + piece, marked)
        else:
            runs.append((piece, marked))
    return runs
