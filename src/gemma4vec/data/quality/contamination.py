"""Find the texts of a suite in training data, and the suite's queries that this touches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, NamedTuple

from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.quality.overlap import CONTAINED_WORDS, KINDS, NEAR, Kind, OverlapIndex
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.text.prompts import Document

Field = Literal["query", "positive", "negative"]
Side = Literal["query", "document"]
FIELDS: tuple[Field, ...] = ("query", "positive", "negative")
SIDES: tuple[Side, ...] = ("query", "document")
BLOCK = 5_000
EXAMPLES = 3
SHOWN = 300


class Item(NamedTuple):
    """A text of suite number `suite`; `untitled` is its normalized text without the title, "" if it has no title."""

    suite: int
    side: Side
    id: str
    text: str
    untitled: str


class Hit(NamedTuple):
    """A text of row `row` (from 1) overlaps with a suite's item; `place` is its position among texts of its field."""

    row: int
    field: Field
    place: int
    item: Item
    kind: Kind
    similarity: float
    text: str


@dataclass
class SuiteOverlap:
    """The overlap of one source with one suite.

    Attributes:
        items: (field, side) -> id -> strongest rule that matched.
        rows: (field, side) -> rule -> number of rows; each row counts at its strongest rule only.
        examples: a few for each field, side and rule.
    """

    items: dict[tuple[Field, Side], dict[str, Kind]] = field(default_factory=dict)
    rows: dict[tuple[Field, Side], dict[Kind, int]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def ids(self, side: Side) -> set[str]:
        """Return the ids of the suite's queries or documents that overlap with any training text."""
        return {key for (_, found), items in self.items.items() if found == side for key in items}

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each training field and side of the suite: numbers of items and rows by rule."""
        return [
            {
                "field": name,
                "side": side,
                "items": {kind: sum(one == kind for one in self.items[name, side].values()) for kind in KINDS},
                "rows": {kind: self.rows[name, side].get(kind, 0) for kind in KINDS},
            }
            for name in FIELDS
            for side in SIDES
            if (name, side) in self.items
        ]


class ContaminationIndex:
    """An index of suites' texts in which training rows are looked up.

    Args:
        suites: the texts to index.
        near: minimum Jaccard similarity of a near match.
    """

    def __init__(self, suites: Sequence[SuiteTexts], near: float = NEAR) -> None:
        self.suites = list(suites)
        items = [item for number, suite in enumerate(suites) for item in _iterate_items(number, suite)]
        texts = [item.text for item in items]
        # Containment needs CONTAINED_WORDS words, so a shorter text without its title is a separate entry.
        short = [item for item in items if item.untitled and len(item.untitled.split()) < CONTAINED_WORDS]
        self._entries = [*items, *short]
        self._index = OverlapIndex([*texts, *(item.untitled for item in short)], near)

    def hits(self, rows: Iterable[Row]) -> Iterator[Hit]:
        """Yield every overlap of the rows with the suites, each pair of text and item at most once."""
        numbered = enumerate(rows, start=1)
        while block := list(islice(numbered, BLOCK)):
            texts = [(number, *part) for number, row in block for part in _iterate_texts(row)]
            seen: set[tuple[int, int]] = set()
            for match in self._index.match([text for *_, text in texts]):
                item = self._entries[match.entry]
                if (match.text, id(item)) in seen:
                    continue
                seen.add((match.text, id(item)))
                number, name, place, text = texts[match.text]
                kind, similarity = match.kind, match.similarity
                if kind == "contained" and item.untitled and normalize(text) == item.untitled:
                    kind, similarity = "exact", 1.0
                yield Hit(number, name, place, item, kind, similarity, text)

    def find_touched(self, suite: int, found: SuiteOverlap) -> list[str]:
        """Return the ids of touched queries: those that overlap, or have a relevant document that does."""
        queries, documents = found.ids("query"), found.ids("document")
        relevant = self.suites[suite].relevant
        return sorted(
            key for key in self.suites[suite].query_ids if key in queries or relevant.get(key, set()) & documents
        )


def collect_overlaps(hits: Iterable[Hit], suites: int, source: str) -> list[SuiteOverlap]:
    """Sum up the hits of one source for each suite."""
    found = [SuiteOverlap() for _ in range(suites)]
    strongest: dict[tuple[int, int, Field, Side], Kind] = {}
    for hit in hits:
        own, cell = found[hit.item.suite], (hit.field, hit.item.side)
        items = own.items.setdefault(cell, {})
        items[hit.item.id] = _pick_stronger(items.get(hit.item.id), hit.kind)
        row = (hit.row, hit.item.suite, *cell)
        strongest[row] = _pick_stronger(strongest.get(row), hit.kind)
        of_kind = sum(
            (one["field"], one["side"], one["kind"]) == (hit.field, hit.item.side, hit.kind) for one in own.examples
        )
        if of_kind < EXAMPLES:
            own.examples.append(_example(hit, source))
    for (_, suite, name, side), kind in strongest.items():
        counts = found[suite].rows.setdefault((name, side), {})
        counts[kind] = counts.get(kind, 0) + 1
    return found


def _pick_stronger(one: Kind | None, other: Kind) -> Kind:
    return other if one is None else min(one, other, key=KINDS.index)


def _example(hit: Hit, source: str) -> dict[str, Any]:
    return {
        "field": hit.field,
        "side": hit.item.side,
        "kind": hit.kind,
        "similarity": round(hit.similarity, 4),
        "source": source,
        "row": hit.row,
        "id": hit.item.id,
        "training_text": hit.text[:SHOWN],
        "suite_text": hit.item.text[:SHOWN],
    }


def _iterate_items(number: int, suite: SuiteTexts) -> Iterator[Item]:
    for key, query in suite.queries:
        yield Item(number, "query", key, query, "")
    for key, document in suite.documents:
        yield Item(number, "document", key, _join_title(document), normalize(document.text) if document.title else "")


def _iterate_texts(row: Row) -> Iterator[tuple[Field, int, str]]:
    yield "query", 0, row.query
    for place, document in enumerate(row.pos):
        yield "positive", place, _join_title(document)
    for place, document in enumerate(row.neg):
        yield "negative", place, _join_title(document)


def _join_title(document: Document) -> str:
    return f"{document.title} {document.text}" if document.title else document.text
