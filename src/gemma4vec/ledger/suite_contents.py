"""What the ledger keeps of a suite's texts: hashes by which the suite is recognized under another name.

A record of kind "suite" holds the smallest hashes of its queries and documents (bottom-k sketches; Broder, "On the
resemblance and containment of documents", 1997). Two sketches estimate which share of each suite is in the other.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import Ledger, now
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_hash import text_key

QUERIES, DOCUMENTS = 4096, 1024  # hashes that are stored
DOCUMENT_START = 240  # characters of a document that count
DIGITS = 12  # hexadecimal digits of a hash
COPY = 0.5  # of the queries and documents of both suites together: above it, one is a changed copy of the other
_WORD = re.compile(r"\w+")
NOTABLE = 0.1  # share of the queries of one of the two
_records: dict[tuple[str, str], "_KnownSuite | None"] = {}  # by ledger and record: records never change
_known: dict[str, "SuiteContents | None"] = {}
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
class Sketch:
    """The smallest hashes of a set of texts.

    Attributes:
        count: number of different texts.
        hashes: the smallest ones, or all.
    """

    count: int
    hashes: frozenset[int]

    @classmethod
    def of(cls, hashes: Iterable[int], limit: int | None = None) -> "Sketch":
        """Keep the smallest `limit` of these hashes; None keeps all."""
        every = sorted(set(hashes))
        return cls(len(every), frozenset(every[:limit]))

    @property
    def _end(self) -> float:
        """The hash up to which the sketch is complete."""
        return float("inf") if len(self.hashes) == self.count else float(max(self.hashes, default=0))

    def shares(self, other: "Sketch") -> tuple[float, float]:
        """Estimate the share of this set that is in `other`, and the share of `other` that is in this one."""
        both = self.hashes & other.hashes
        if not both:
            return 0.0, 0.0
        end = min(self._end, other._end)
        common, ours, theirs = (sum(one <= end for one in hashes) for hashes in (both, self.hashes, other.hashes))
        return (common / ours if ours else 0.0), (common / theirs if theirs else 0.0)

    def may_have(self, one: int) -> bool:
        """Whether a hash is in the set; unknown ones, beyond an incomplete sketch, may be."""
        return one in self.hashes or one > self._end

    def text(self) -> str:
        """The hashes in order, as digits without a separator."""
        return "".join(f"{one:0{DIGITS}x}" for one in sorted(self.hashes))

    @classmethod
    def read(cls, count: Any, text: Any) -> "Sketch":
        """Read back `text()`.

        Raises:
            ValueError: not such digits.
        """
        digits = str(text or "")
        every = [int(digits[place : place + DIGITS], 16) for place in range(0, len(digits), DIGITS)]
        return cls(int(count or 0), frozenset(every))


@dataclass(frozen=True)
class SuiteContents:
    """The hashes of a suite's queries and documents. A suite without documents of its own has an empty sketch."""

    queries: Sketch
    documents: Sketch

    def is_copy(self, other: "SuiteContents") -> bool:
        """Return whether one is a changed copy of the other: more than half of all their texts are in both."""
        if not self.documents.count and not other.documents.count:
            return _resemblance(self.queries, other.queries) > COPY
        return all(
            _resemblance(a, b) > COPY for a, b in ((self.queries, other.queries), (self.documents, other.documents))
        )


def contents_of(suite: SeenSuite, fingerprint: str) -> SuiteContents | None:
    """Return the hashes of all texts of a suite or of a group's members; None if they are unknown (tasks of mteb).

    Case, punctuation and white space do not count, of a document only the beginning does.
    """
    if fingerprint not in _known:
        if len(_known) >= _KEPT:
            _known.pop(next(iter(_known)))
        _known[fingerprint] = _read(suite)
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
    queries, documents = Sketch.of(found.queries.hashes, QUERIES), Sketch.of(found.documents.hashes, DOCUMENTS)
    body = {
        "suite": suite.name,
        "suite_fingerprint": fingerprint,
        "role": suite.role,
        "group": is_group(suite),
        "sealed_from": _sealed_from(suite, fingerprint),
        "queries": found.queries.count,
        "documents": found.documents.count,
        "query_hashes": queries.text(),
        "document_hashes": documents.text(),
    }
    return Record(f"suite-{fingerprint[:32]}", "suite", now(), body)


def _sealed_from(suite: SeenSuite, fingerprint: str) -> str | None:
    """Where the sealed half of its queries begins; None for a group, whose members have halves of their own."""
    if not isinstance(suite, _WithTexts):
        return None
    return first_sealed(fingerprint, [key for key, _ in suite.texts().queries])


def half_key(fingerprint: str, query_id: str) -> str:
    """A query's place in the order, as hexadecimal digits; larger ones are sealed."""
    text = f"{fingerprint}\0{query_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text).hexdigest()


def first_sealed(fingerprint: str, query_ids: Sequence[str]) -> str | None:
    """The least key of the sealed half; None for fewer than two queries, which have no halves."""
    if len(query_ids) < 2:
        return None
    keys = sorted(half_key(fingerprint, one) for one in query_ids)
    return keys[(len(keys) + 1) // 2]


def read_contents(body: dict[str, Any]) -> SuiteContents | None:
    """Return the hashes of a record of kind "suite"; None if it is damaged."""
    try:
        return SuiteContents(
            Sketch.read(body.get("queries"), body.get("query_hashes")),
            Sketch.read(body.get("documents"), body.get("document_hashes")),
        )
    except (TypeError, ValueError):
        return None


def _read(suite: SeenSuite) -> SuiteContents | None:
    if not isinstance(suite, _WithTexts):
        if not isinstance(suite, _Group):
            return None
        every = [found for one in suite.members if (found := contents_of(one, one.fingerprint)) is not None]
        return SuiteContents(
            Sketch.of(key for one in every for key in one.queries.hashes),
            Sketch.of(key for one in every for key in one.documents.hashes),
        )
    texts = suite.texts()
    queries = Sketch.of(words_hash(text) for _, text in texts.queries)
    documents = Sketch.of(words_hash(f"{one.title or ''}\n{one.text[:DOCUMENT_START]}") for _, one in texts.documents)
    return SuiteContents(queries, documents)


def known_contents(queries: Sketch) -> SuiteContents:
    """Contents whose queries alone are known."""
    return SuiteContents(queries, Sketch(0, frozenset()))


def words_hash(text: str) -> int:
    """A text's hash, without case, punctuation and white space."""
    return text_key(" ".join(_WORD.findall(text.lower()))) & (16**DIGITS - 1)


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
        sealed_from: where its sealed half begins (`half_key`); None where it is not known.
    """

    suite: str
    fingerprint: str
    role: str | None
    queries: int
    shared: float
    copy: bool
    group: bool
    contents: SuiteContents
    sealed_from: str | None

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
    sealed_from: str | None


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
        of_ours, of_theirs = contents.queries.shares(one.contents.queries)
        if max(of_ours, of_theirs) >= NOTABLE:
            count, copy = one.contents.queries.count, contents.is_copy(one.contents)
            more = one.group, one.contents, one.sealed_from
            found.append(Overlap(one.name, one.fingerprint, one.role, count, of_theirs, copy, *more))
    return found


def find_copies(ledger: Ledger, fingerprint: str) -> list[str]:
    """Return the fingerprints of these contents and of the changed copies of them that the ledger knows."""
    contents = recorded_contents(ledger, fingerprint)
    return [fingerprint, *(one.fingerprint for one in find_overlaps(ledger, fingerprint, contents) if one.copy)]


def recorded_contents(ledger: Ledger, fingerprint: str) -> SuiteContents | None:
    """Return the hashes that the ledger has of these contents; None if it has none."""
    return next((one.contents for one in _known_suites(ledger) if one.fingerprint == fingerprint), None)


def _known_suites(ledger: Ledger) -> list[_KnownSuite]:
    """Return the suites of the ledger, in the order in which they were first seen."""
    found = []
    for row in ledger.rows("SELECT id FROM records WHERE kind = 'suite' ORDER BY seq"):
        key = (str(ledger.path), str(row["id"]))
        if key not in _records:
            body = json.loads(ledger.value("SELECT body FROM records WHERE id = ?", (row["id"],)))
            contents = read_contents(body)
            names = str(body.get("suite")), str(body.get("suite_fingerprint")), body.get("role")
            begins = body.get("sealed_from")
            halves = begins if isinstance(begins, str) else None
            _records[key] = _KnownSuite(*names, body.get("group") is True, contents, halves) if contents else None
        one = _records[key]
        found += [one] if one is not None else []
    return found
