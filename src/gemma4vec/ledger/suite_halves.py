"""Which of a suite's queries are sealed, and which are sealed in another suite that the ledger knows.

The order of a suite's queries by blake2b(contents, id) decides: its second half is sealed. A sample has the halves of
the whole suite, so that no slice is found on queries that this one seals. Whoever shows queries asks `shown_queries`,
or `withheld_items` of a result.

Legend: N queries.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.files import home
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ledger.suite_access import is_final
from gemma4vec.ledger.suite_contents import (
    Halves,
    Overlap,
    find_overlaps,
    half_key,
    known_queries,
    recorded_contents,
    recorded_halves,
    split_order,
)
from gemma4vec.text.sketch import TextHash, query_hash

UNSURE = 2.0  # standard deviations of the median of uniform hashes, doubled: beyond it a query is surely open
HALVED = ("retrieval", "compact-retrieval")  # kinds whose slices are found on one half and confirmed on the other

Mask = npt.NDArray[np.bool_]


class HalvedSuite(Protocol):
    """A suite whose queries have two halves."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def fingerprint(self) -> str:
        """Hash of the contents."""

    @property
    def query_ids(self) -> Sequence[str]:
        """Each once."""

    @property
    def queries(self) -> Sequence[str]:
        """Texts of the queries."""

    @property
    def halves(self) -> Halves | None:
        """Those of the suite that it is a sample of; None: its own."""


def sealed_half(suite: HalvedSuite) -> Mask | None:
    """Whether each query of a suite is sealed, bool[N]; None where none is, so that it has no halves.

    Raises:
        InputError: a sample without a query of the whole suite's open half.
    """
    sealed_N = split_halves(suite.fingerprint, suite.query_ids, suite.halves)
    if sealed_N is not None and sealed_N.all():
        raise InputError(
            f"{suite.name}: all of its {len(sealed_N):,} queries are sealed in the suite that it is a sample of; take "
            "a larger sample"
        )
    return sealed_N if sealed_N is not None and sealed_N.any() else None


def shown_half(suite: HalvedSuite) -> Mask:
    """`shown_queries` of a suite whose texts are at hand."""
    return shown_queries(suite.fingerprint, suite.query_ids, suite.queries, suite.halves)


def split_halves(fingerprint: str, query_ids: Sequence[str], halves: Halves | None = None) -> Mask | None:
    """Whether each query is in the sealed half, bool[N]; None for fewer than two queries, which have no halves.

    Queries are ordered by blake2b(fingerprint, id); the second half of that order is sealed, so that the halves differ
    by at most one query. The order of `query_ids` does not matter. A sample of a suite has that suite's halves.

    Args:
        fingerprint: of the suite's contents.
        query_ids: all of the suite's, each once.
        halves: of the suite that it is a sample of; None: as the ledger recorded them, if it is one.
    """
    known = halves or _recorded(fingerprint) or split_order(fingerprint, query_ids)
    return None if known is None else np.array([known.seals(one) for one in query_ids], dtype=bool)


def _recorded(fingerprint: str) -> Halves | None:
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            return recorded_halves(ledger, fingerprint)
    except (Gemma4VecError, OSError):
        return None


def shown_queries(
    fingerprint: str, query_ids: Sequence[str], queries: Sequence[str] | None, halves: Halves | None = None
) -> Mask:
    """Whether each query may be shown, bool[N]: of the open half, and sealed in no other suite that shares it.

    Args:
        fingerprint, query_ids, halves: as `split_halves`.
        queries: their texts; None where they are not at hand.
    """
    sealed_N = split_halves(fingerprint, query_ids, halves)
    open_N = np.ones(len(query_ids), dtype=bool) if sealed_N is None else ~sealed_N
    return open_N & ~sealed_elsewhere(fingerprint, query_ids, queries)


def sealed_elsewhere(fingerprint: str, query_ids: Sequence[str], queries: Sequence[str] | None) -> Mask:
    """Whether each query is sealed in another suite that has it under this id and text, bool[N].

    Where the ledger's record of that suite is of an older version, and where it has more queries than its record,
    queries that may be sealed count as sealed. Nothing is known without a ledger.

    Args:
        fingerprint: of this suite's contents.
        query_ids, queries: its ids and texts, N of each. Without texts (None) what the ledger recorded of this suite
            says which others share its queries, and an id alone decides.
    """
    hashes = None if queries is None else [query_hash(text) for text in queries]
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            related = _related(ledger, fingerprint, hashes)
    except (Gemma4VecError, OSError):
        related = []
    found_N = np.zeros(len(query_ids), dtype=bool)
    for other in related:
        if not other.group:
            sealed_N = np.array([_may_be_sealed(other, key) for key in query_ids], dtype=bool)
            if hashes is not None:
                sealed_N &= np.array([other.contents.may_have(one) for one in hashes], dtype=bool)
            found_N |= sealed_N
    return found_N


def _related(ledger: Ledger, fingerprint: str, hashes: Sequence[TextHash] | None) -> list[Overlap]:
    """Other suites that share queries with these."""
    contents = recorded_contents(ledger, fingerprint) if hashes is None else known_queries(hashes)
    return find_overlaps(ledger, fingerprint, contents)


def _may_be_sealed(other: Overlap, query_id: str) -> bool:
    if other.halves is not None:
        return other.halves.seals(query_id)
    share = int(half_key(other.fingerprint, query_id)[:16], 16) / 16**16
    return share >= 0.5 - UNSURE / max(other.queries, 1) ** 0.5


def withheld_items(suite: Mapping[str, Any], keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (task, query id) of a result that must not be shown one by one: sealed ones, and all of a final suite.

    Args:
        suite: what the result says of its suite (`data.suites.suite.describe_suite`); of several tasks, of each.
        keys: all of the result's.
    """
    found: set[tuple[str, str]] = set()
    whole = suite.get("tasks") or {}
    for task in dict.fromkeys(task for task, _ in keys):
        about = whole.get(task, suite) if isinstance(whole, dict) else suite
        contents, ids = about.get("fingerprint"), [key for name, key in keys if name == task]
        if is_final(str(contents or ""), about.get("role") or suite.get("role")):
            found |= {(task, key) for key in ids}
        elif isinstance(contents, str) and about.get("kind", HALVED[0]) in HALVED:
            shown_N = shown_queries(contents, ids, None)
            found |= {(task, key) for key, shown in zip(ids, shown_N.tolist(), strict=True) if not shown}
    return found


def hidden_words(hidden: int, queries: int) -> str:
    """For a person: how many queries are withheld; empty for none."""
    where = "sealed, here or in a suite that shares them, and not shown"
    return f"{hidden:,} of {queries:,} queries are {where}" if hidden else ""
