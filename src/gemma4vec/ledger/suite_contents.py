"""What the ledger keeps of a suite's texts: hashes by which the suite is recognized under another name.

A record of kind "suite" holds the smallest hashes of its queries and documents (bottom-k sketches; Broder, "On the
resemblance and containment of documents", 1997). Two sketches estimate which share of each suite is in the other.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import Ledger, now
from gemma4vec.text.prompts import Document
from gemma4vec.text.sketch import Sketch, TextHash, document_hash, query_hash

QUERIES, DOCUMENTS = 4096, 1024  # hashes that are stored
COPY = 0.5  # of the queries and documents of both suites together: above it, one is a changed copy of the other
NOTABLE = 0.1  # share of the queries of one of the two
_records: dict[tuple[str, str], "_KnownSuite | None"] = {}  # by ledger and record: records never change
_known: dict[str, "SuiteContents"] = {}
_KEPT = 64


class SuiteTexts(Protocol):
    """The texts of a suite, as `data.suites.texts` has them."""

    @property
    def queries(self) -> list[tuple[str, str]]:
        """(id, text)."""

    @property
    def documents(self) -> list[tuple[str, Document]]:
        """(id, document)."""


class SeenSuite(Protocol):
    """A suite that somebody wants to see."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def fingerprint(self) -> str:
        """Hash of the contents."""

    @property
    def role(self) -> str | None:
        """dev, final or None."""


@runtime_checkable
class _WithTexts(Protocol):
    def texts(self) -> SuiteTexts:
        """The texts that must not be in training data."""


@runtime_checkable
class _Group(Protocol):
    @property
    def members(self) -> Sequence[SeenSuite]:
        """The tasks."""


@dataclass(frozen=True)
class SuiteContents:
    """The hashes of a suite's queries and documents. A suite without documents of its own has an empty sketch.

    Attributes:
        visible: the same of what is seen of the texts; None where nothing is hidden, or where an older version recorded
            the suite.
    """

    queries: Sketch
    documents: Sketch
    visible: "SuiteContents | None" = None

    def is_copy(self, other: "SuiteContents") -> bool:
        """Return whether one is a changed copy of the other: more than half of all their texts are in both."""
        return any(a._resembles(b) for a, b in self._with(other))

    def shares(self, other: "SuiteContents") -> tuple[float, float]:
        """Estimate the share of these queries that are in `other`, and the share of its queries that are in these."""
        found = [a.queries.shares(b.queries) for a, b in self._with(other)]
        return max(one for one, _ in found), max(one for _, one in found)

    def may_have(self, query: TextHash) -> bool:
        """Whether a query is in the suite; unknown ones, beyond an incomplete sketch, may be."""
        return self.queries.may_have(query.whole) or (self.visible or self).queries.may_have(query.visible)

    def _with(self, other: "SuiteContents") -> "list[tuple[SuiteContents, SuiteContents]]":
        """Both as they are and, where something is hidden in one, both as they are seen."""
        as_seen = [(self.visible or self, other.visible or other)] if self.visible or other.visible else []
        return [(self, other), *as_seen]

    def _resembles(self, other: "SuiteContents") -> bool:
        if not self.documents.count and not other.documents.count:
            return _resemblance(self.queries, other.queries) > COPY
        return all(
            _resemblance(a, b) > COPY for a, b in ((self.queries, other.queries), (self.documents, other.documents))
        )


class Halves(NamedTuple):
    """Which queries are sealed: those whose place in the order by these contents is not before `begins`.

    Attributes:
        contents: fingerprint of the suite whose queries were split: of a sample, the whole suite.
        begins: least key of its sealed half (`half_key`).
    """

    contents: str
    begins: str

    def seals(self, query_id: str) -> bool:
        """Whether the query is sealed."""
        return half_key(self.contents, query_id) >= self.begins


def contents_of(suite: SeenSuite, fingerprint: str) -> SuiteContents | None:
    """Return the hashes of all texts of a suite or of a group's members; None if they are unknown (tasks of mteb).

    Case, punctuation and white space do not count, of a document only the beginning does.
    """
    if fingerprint not in _known:
        if len(_known) >= _KEPT:
            _known.pop(next(iter(_known)))
        found = _read(suite)
        if found is None:
            return None  # the same contents may come with their texts
        _known[fingerprint] = found
    return _known[fingerprint]


def is_group(suite: SeenSuite) -> bool:
    """Return whether a suite is several in one."""
    return isinstance(suite, _Group) and not isinstance(suite, _WithTexts)


def suite_record(suite: SeenSuite) -> Record | None:
    """Return the record of a suite's texts; None if they are unknown."""
    fingerprint = suite.fingerprint
    found = contents_of(suite, fingerprint)
    if found is None:
        return None
    halves = halves_of(suite, fingerprint)
    body = {
        "suite": suite.name,
        "suite_fingerprint": fingerprint,
        "role": suite.role,
        "group": is_group(suite),
        "sealed_from": None if halves is None else halves.begins,
        **_sketches(found),
    }
    more: dict[str, Any] = {} if halves is None or halves.contents == fingerprint else {"halves_of": halves.contents}
    more |= {} if found.visible is None else {"visible": _sketches(found.visible)}
    # What older versions did not record comes as a record of its own.
    return Record(f"suite-{fingerprint[:32]}{'-more' if more else ''}", "suite", now(), body | more)


def _sketches(contents: SuiteContents) -> dict[str, Any]:
    queries, documents = Sketch.of(contents.queries.hashes, QUERIES), Sketch.of(contents.documents.hashes, DOCUMENTS)
    return {
        "queries": contents.queries.count,
        "documents": contents.documents.count,
        "query_hashes": queries.text(),
        "document_hashes": documents.text(),
    }


def halves_of(suite: SeenSuite, fingerprint: str) -> Halves | None:
    """The halves of a suite's queries; None for one query, and for a group, whose members have halves of their own."""
    if not isinstance(suite, _WithTexts):
        return None
    known = getattr(suite, "halves", None)  # of a sample
    if isinstance(known, Halves):
        return known
    return split_order(fingerprint, [key for key, _ in suite.texts().queries])


def half_key(fingerprint: str, query_id: str) -> str:
    """A query's place in the order, as hexadecimal digits; larger ones are sealed."""
    text = f"{fingerprint}\0{query_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text).hexdigest()


def split_order(fingerprint: str, query_ids: Sequence[str]) -> Halves | None:
    """The halves of these queries; None for fewer than two, which have none."""
    if len(query_ids) < 2:
        return None
    keys = sorted(half_key(fingerprint, one) for one in query_ids)
    return Halves(fingerprint, keys[(len(keys) + 1) // 2])


def read_contents(body: dict[str, Any]) -> SuiteContents | None:
    """Return the hashes of a record of kind "suite"; None if it is damaged."""
    try:
        seen = body.get("visible")
        return SuiteContents(
            Sketch.read(body.get("queries"), body.get("query_hashes")),
            Sketch.read(body.get("documents"), body.get("document_hashes")),
            read_contents(seen) if isinstance(seen, dict) else None,
        )
    except (TypeError, ValueError):
        return None


def _read(suite: SeenSuite) -> SuiteContents | None:
    if not isinstance(suite, _WithTexts):
        if not isinstance(suite, _Group):
            return None
        every = [found for one in suite.members if (found := contents_of(one, one.fingerprint)) is not None]
        whole = _joined(every)
        return replace(whole, visible=_joined([one.visible or one for one in every])) if _any_hidden(every) else whole
    texts = suite.texts()
    queries = [query_hash(text) for _, text in texts.queries]
    documents = [document_hash(one) for _, one in texts.documents]
    whole, seen = (
        SuiteContents(Sketch.of(one[form] for one in queries), Sketch.of(one[form] for one in documents))
        for form in (0, 1)
    )
    return whole if seen == whole else replace(whole, visible=seen)


def _joined(every: Sequence[SuiteContents]) -> SuiteContents:
    return SuiteContents(
        Sketch.of(key for one in every for key in one.queries.hashes),
        Sketch.of(key for one in every for key in one.documents.hashes),
    )


def _any_hidden(every: Sequence[SuiteContents]) -> bool:
    return any(one.visible is not None for one in every)


def known_queries(queries: Sequence[TextHash]) -> SuiteContents:
    """Contents whose queries alone are known."""
    whole, seen = (SuiteContents(Sketch.of(one[form] for one in queries), Sketch.of([])) for form in (0, 1))
    return whole if seen == whole else replace(whole, visible=seen)


def _resemblance(a: Sketch, b: Sketch) -> float:
    """Estimate the share of all texts of both that are in both (Jaccard's index)."""
    of_a, of_b = a.shares(b)
    return 1.0 / (1.0 / of_a + 1.0 / of_b - 1.0) if of_a and of_b else 0.0


class Overlap(NamedTuple):
    """Another suite with the same queries.

    Attributes:
        suite, fingerprint, role: of the other suite, when it was first seen.
        queries: number of its queries.
        shared: share of its queries that are in this suite.
        copy: whether one is a changed copy of the other.
        group: whether it is several suites in one.
        contents: its hashes.
        halves: of its queries; None where they are not known.
    """

    suite: str
    fingerprint: str
    role: str | None
    queries: int
    shared: float
    copy: bool
    group: bool
    contents: SuiteContents
    halves: Halves | None

    def words(self) -> str:
        """Its name, and how much is shared."""
        return f"{self.suite} ({max(1, round(self.shared * self.queries)):,} of its {self.queries:,} queries)"

    def sentence(self, suite: str) -> str:
        """For a person."""
        kind = f"{self.role} suite" if self.role else "suite"
        return f"{suite} overlaps the {kind} {self.words()}; what was chosen on one is not tested by the other"

    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        return {"suite": self.suite, "role": self.role, "queries": self.queries, "shared": round(self.shared, 4)}


class _KnownSuite(NamedTuple):
    name: str
    fingerprint: str
    role: str | None
    group: bool
    contents: SuiteContents
    halves: Halves | None


def find_overlaps(ledger: Ledger, fingerprint: str, contents: SuiteContents | None) -> list[Overlap]:
    """Return the other suites that share at least a tenth of either's queries.

    Args:
        fingerprint: of this suite.
        contents: its hashes; None (unknown texts) finds nothing.
    """
    found: list[Overlap] = []
    if contents is None:
        return found
    for one in _known_suites(ledger):
        if one.fingerprint == fingerprint:
            continue
        of_ours, of_theirs = contents.shares(one.contents)
        if max(of_ours, of_theirs) >= NOTABLE:
            count, copy = one.contents.queries.count, contents.is_copy(one.contents)
            more = one.group, one.contents, one.halves
            found.append(Overlap(one.name, one.fingerprint, one.role, count, of_theirs, copy, *more))
    return found


def find_copies(ledger: Ledger, fingerprint: str) -> list[str]:
    """Return the fingerprints of these contents and of the changed copies of them that the ledger knows."""
    contents = recorded_contents(ledger, fingerprint)
    return [fingerprint, *(one.fingerprint for one in find_overlaps(ledger, fingerprint, contents) if one.copy)]


def find_same_halves(ledger: Ledger, fingerprint: str) -> list[str]:
    """Return `find_copies`, and the contents whose sealed queries are those of the same whole suite."""
    copies, own = find_copies(ledger, fingerprint), recorded_halves(ledger, fingerprint)
    whole = fingerprint if own is None else own.contents
    samples = [one.fingerprint for one in _known_suites(ledger) if one.halves and one.halves.contents == whole]
    return list(dict.fromkeys([*copies, *samples]))


def recorded_contents(ledger: Ledger, fingerprint: str) -> SuiteContents | None:
    """Return the hashes that the ledger has of these contents; None if it has none."""
    return next((one.contents for one in _known_suites(ledger) if one.fingerprint == fingerprint), None)


def recorded_halves(ledger: Ledger, fingerprint: str) -> Halves | None:
    """Return the halves of these contents as the ledger has them: those of a sample are the whole suite's."""
    return next((one.halves for one in _known_suites(ledger) if one.fingerprint == fingerprint), None)


def _known_suites(ledger: Ledger) -> list[_KnownSuite]:
    """Return the suites of the ledger, in the order in which they were first seen."""
    found: dict[str, _KnownSuite] = {}
    for row in ledger.rows("SELECT id FROM records WHERE kind = 'suite' ORDER BY seq"):
        key = (str(ledger.path), str(row["id"]))
        if key not in _records:
            _records[key] = _known_suite(json.loads(ledger.value("SELECT body FROM records WHERE id = ?", key[1:])))
        one = _records[key]
        if one is not None:
            first = found.get(one.fingerprint)
            found[one.fingerprint] = one if first is None else _joined_records(first, one)
    return list(found.values())


def _joined_records(first: _KnownSuite, one: _KnownSuite) -> _KnownSuite:
    """What two records say of the same contents: the first names them, the richer one describes them."""
    contents = one.contents if first.contents.visible is None else first.contents
    of_whole = [two.halves for two in (first, one) if two.halves is not None and two.halves.contents != one.fingerprint]
    return first._replace(contents=contents, halves=of_whole[0] if of_whole else first.halves or one.halves)


def _known_suite(body: dict[str, Any]) -> _KnownSuite | None:
    contents, begins = read_contents(body), body.get("sealed_from")
    if contents is None:
        return None
    name, fingerprint = str(body.get("suite")), str(body.get("suite_fingerprint"))
    halves = Halves(str(body.get("halves_of") or fingerprint), begins) if isinstance(begins, str) else None
    return _KnownSuite(name, fingerprint, body.get("role"), body.get("group") is True, contents, halves)
