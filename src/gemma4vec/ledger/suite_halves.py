"""Which of a suite's queries are sealed, and which are sealed in another suite that the ledger knows.

The order of a suite's queries by blake2b(contents, id) decides: its second half is sealed (`inspection.sealed`). A
sample of a suite has other contents, so its halves are others. Whoever shows texts asks `sealed_elsewhere` too.

Legend: N queries.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gemma4vec.errors import Gemma4VecError
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.suite_contents import Overlap, Sketch, find_overlaps, half_key, known_contents, words_hash

UNSURE = 2.0  # standard deviations of the median of uniform hashes, doubled: beyond it a query is surely open


def sealed_elsewhere(fingerprint: str, query_ids: Sequence[str], queries: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether each query is sealed in another suite that has it under this id and text, bool[N].

    Where the ledger's record of that suite is of an older version, and where it has more queries than its record,
    queries that may be sealed count as sealed. Nothing is known without a ledger.

    Args:
        fingerprint: of this suite's contents.
        query_ids, queries: its ids and texts, N of each.
    """
    hashes = [words_hash(text) for text in queries]
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            contents = known_contents(Sketch.of(hashes))
            related = find_overlaps(ledger, fingerprint, contents)
    except (Gemma4VecError, OSError):
        related = []
    found_N = np.zeros(len(query_ids), dtype=bool)
    for other in related:
        if not other.group:
            found_N |= np.array(
                [
                    other.contents.queries.may_have(one) and _may_be_sealed(other, key)
                    for key, one in zip(query_ids, hashes, strict=True)
                ],
                dtype=bool,
            )
    return found_N


def _may_be_sealed(other: Overlap, query_id: str) -> bool:
    key = half_key(other.fingerprint, query_id)
    if other.sealed_from is not None:
        return key >= other.sealed_from
    share = int(key[:16], 16) / 16**16
    return share >= 0.5 - UNSURE / max(other.queries, 1) ** 0.5


def hidden_words(hidden: int, queries: int) -> str:
    """For a person: how many queries are withheld; empty for none."""
    where = "sealed, here or in a suite that shares them, and not shown"
    return f"{hidden:,} of {queries:,} queries are {where}" if hidden else ""
