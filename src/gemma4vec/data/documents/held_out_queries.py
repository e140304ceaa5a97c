"""A suite of held-out sections, each with one query that the folder itself has for it: no person asked it."""

import hashlib
from collections.abc import Sequence

from gemma4vec.data.documents.pairs import Pair
from gemma4vec.data.documents.section import BETWEEN, Section
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.text.prompts import Document

MOST_QUERIES = 1_000


def make_held_out_suite(
    name: str, sections: Sequence[Section], pairs: Sequence[Pair], places: Sequence[int], most: int = MOST_QUERIES
) -> RetrievalSuite:
    """One query for each whole section among `places`, its kind drawn by hash; the section lacks the query's words.

    Sections, not their parts, are found: a section's rank is that of its best part.

    Args:
        name: of the suite.
        sections: all sections.
        pairs: all pairs.
        places: of the sections that are tested on; they are the corpus.
        most: queries, drawn by hash.
    """
    held = set(places)
    by_unit: dict[str, dict[str, list[Pair]]] = {}
    for pair in pairs:
        if pair.place in held:
            by_unit.setdefault(sections[pair.place].unit, {}).setdefault(pair.kind, []).append(pair)
    chosen: list[tuple[str, Pair]] = []
    for unit, by_kind in by_unit.items():
        kind = min(by_kind, key=lambda kind: _digest(unit, kind))
        pair = min(by_kind[kind], key=lambda pair: _digest(unit, pair.query))
        chosen.append((unit, pair))
    chosen = sorted(chosen, key=lambda one: _digest(one[0]))[:most]
    corpus = {place: sections[place].as_document() for place in sorted(held)}
    for unit, pair in chosen:
        corpus[pair.place] = pair.answer
        if pair.kind == "heading":
            _take_heading(corpus, sections, unit)
    first: dict[str, str] = {}
    units = [first.setdefault(sections[place].unit, sections[place].id) for place in corpus]
    chosen.sort(key=lambda one: one[1].place)
    return RetrievalSuite(
        name=name,
        corpus_ids=[sections[place].id for place in corpus],
        corpus=list(corpus.values()),
        query_ids=[f"q{number}" for number in range(1, len(chosen) + 1)],
        queries=[pair.query for _, pair in chosen],
        qrels={f"q{number}": {first[unit]: 1} for number, (unit, _) in enumerate(chosen, start=1)},
        role="dev",
        code=sum(sections[place].code for place in corpus) > len(corpus) / 2,
        units=units,
    )


def _take_heading(corpus: dict[int, Document], sections: Sequence[Section], unit: str) -> None:
    """Take the section's own heading from the titles of all its parts."""
    for place, document in corpus.items():
        if sections[place].unit == unit:
            corpus[place] = Document(document.text, BETWEEN.join(sections[place].headings[:-1]) or None)


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest()
