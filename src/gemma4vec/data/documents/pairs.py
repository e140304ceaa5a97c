"""Queries that a folder itself has for its sections: headings, sentences, the words of links, descriptions of code.

A sentence and the rest of its passage are the inverse cloze task of Lee et al. (2019, arXiv:1906.00300); headings and
links as queries are those of Chang et al. (2020, arXiv:2002.03932), who use Wikipedia's.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from gemma4vec.data.documents.links import Places
from gemma4vec.data.documents.section import BETWEEN, Section, one_line, sentences
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.recipe.sources import DOCUMENT_PAIRS, DocumentPair
from gemma4vec.text.prompts import Document

SENTENCE_WORDS = (6, 50)
REST_WORDS = 8
SECTION_WORDS = 5
LETTER_SHARE = 0.75  # of what is not a space; tables and commands have fewer
# Words of links that say nothing about where they lead.
_SAYING_NOTHING = (
    "here|this|click here|see here|link|this link|this page|page|more|read more|learn more|next|previous|prev|back|top"
    "|source|docs|documentation|home|index|details|see also|edit|permalink|view source|download|example|examples"
)
SAYING_NOTHING = frozenset(_SAYING_NOTHING.split("|"))
_BULLET = re.compile(r"^(?:[-*+•]|\d+[.)])\s+")
_LETTER = re.compile(r"[^\W\d_]")


class Pair(NamedTuple):
    """A query and what answers it.

    Attributes:
        kind: where the query is from.
        query: its words.
        place: of the section, in the list that pairs were made of.
        answer: the section without the query's words.
    """

    kind: DocumentPair
    query: str
    place: int
    answer: Document


def make_pairs(sections: Sequence[Section], kept: Sequence[int], *, sentences_each: int = 2) -> list[Pair]:
    """All pairs of the kept sections, by section. A query that belongs to several of them is left out: it finds none.

    Args:
        sections: of a folder, with all that links lead to.
        kept: places of the sections that are trained on or tested: those without near-duplicates.
        sentences_each: most sentences of a section that become queries.
    """
    places = Places(sections)
    parents = {
        (section.path, section.headings[:depth]) for section in sections for depth in range(len(section.headings))
    }
    headings = [sections[place].headings for place in kept if sections[place].part == 1 and sections[place].headings]
    repeated = Counter(normalize(one[-1]) for one in headings)
    pairs: list[Pair] = []
    chosen = set(kept)
    for place in kept:
        section = sections[place]
        if section.query is not None:
            pairs.append(Pair("code", section.query, place, section.as_document()))
        if section.code or _count_words(section.text) < SECTION_WORDS:
            continue
        # The titles below a heading say it too, so only one without others below it belongs to one section.
        if section.part == 1 and section.headings and (section.path, section.headings) not in parents:
            pairs += _heading_pairs(section, place, repeated)
        pairs += _sentence_pairs(section, place, sentences_each)
    for section in sections:
        pairs += _link_pairs(section, sections, places)
    pairs = [pair for pair in pairs if pair.place in chosen]
    return _without_ambiguous(pairs, sections)


def _heading_pairs(section: Section, place: int, repeated: Counter[str]) -> list[Pair]:
    """The heading, below which its section stands; with the one above it where it says little, as `Usage` does."""
    *above, heading = section.headings
    words = normalize(heading).split()
    if not words or not _LETTER.search(heading):
        return []
    query = heading
    if above and (len(words) < 2 or repeated[" ".join(words)] > 1):
        query = f"{above[-1]}: {heading}"
    text = _without_heading(section.text, heading)
    if _count_words(text) < SECTION_WORDS:
        return []
    return [Pair("heading", query, place, Document(text, BETWEEN.join(above) or None))]


def _without_heading(text: str, heading: str) -> str:
    """The text without its heading's words at its beginning, where papers and exports repeat them."""
    words = re.findall(r"\w+", heading)
    if not words or not text.lstrip().lower().startswith(words[0].lower()):
        return text
    found = re.match(r"\W*" + r"\W+".join(map(re.escape, words)) + r"\b[^\w([\"']*", text, re.IGNORECASE)
    return text[found.end() :] if found else text


def _sentence_pairs(section: Section, place: int, most: int) -> list[Pair]:
    """Sentences drawn by hash, and the section without each."""
    found = []
    for start, end in sentences(section.text):
        sentence = _BULLET.sub("", one_line(section.text[start:end]))
        rest = f"{section.text[:start].rstrip(' ')} {section.text[end:].lstrip(' ')}".strip()
        if _is_query(sentence) and _count_words(rest) >= REST_WORDS:
            digest = hashlib.sha256(f"{section.id}\n{sentence}".encode("utf-8", "surrogatepass")).digest()
            found.append((digest, Pair("sentence", sentence, place, Document(rest, section.title))))
    return [pair for _, pair in sorted(found, key=lambda one: one[0])[:most]]


def _is_query(sentence: str) -> bool:
    low, high = SENTENCE_WORDS
    if " | " in sentence or not low <= _count_words(sentence) <= high:
        return False
    letters = len(_LETTER.findall(sentence))
    return letters >= LETTER_SHARE * len(sentence.replace(" ", ""))


def _link_pairs(section: Section, sections: Sequence[Section], places: Places) -> list[Pair]:
    """The words of each link that leads to another section of the folder."""
    pairs = []
    for text, target in section.links:
        words = normalize(text)
        if words in SAYING_NOTHING or len(words.split()) < 2 or "://" in text:
            continue
        place = places.find(target, section.path)
        if place is None or sections[place].unit == section.unit:
            continue
        goal = sections[place]
        if _count_words(goal.text) < SECTION_WORDS or (goal.headings and normalize(goal.headings[-1]) == words):
            continue  # its own heading is a query already
        pairs.append(Pair("link", one_line(text), place, goal.as_document()))
    return pairs


def _without_ambiguous(pairs: list[Pair], sections: Sequence[Section]) -> list[Pair]:
    """The pairs without queries of several sections, and without repetitions; by section, then by kind."""
    answered: dict[str, set[str]] = {}
    for pair in pairs:
        answered.setdefault(normalize(pair.query), set()).add(sections[pair.place].unit)
    kept: dict[tuple[str, int], Pair] = {}
    for pair in pairs:
        key = normalize(pair.query)
        if key and len(answered[key]) == 1:
            kept.setdefault((key, pair.place), pair)
    return sorted(kept.values(), key=lambda pair: (pair.place, DOCUMENT_PAIRS.index(pair.kind)))


def _count_words(text: str) -> int:
    return len(normalize(text).split())
