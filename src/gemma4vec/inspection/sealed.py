"""Two halves of a suite's queries: one to find slices on, one sealed until a slice is confirmed.

The half of a query follows from a hash of the suite's contents and the query's id, so that nobody chooses it and every
machine has the same. The seal is a convention with a record, not a lock: the suite's files lie open.

Without the second half the worst of a dozen clusters of queries looks "significant" in 30 to 62% of pure noise.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from gemma4vec.ledger.suite_contents import half_key
from gemma4vec.ledger.suite_halves import sealed_elsewhere

Half = Literal["discovery", "sealed"]
DISCOVERY: Half = "discovery"
SEALED: Half = "sealed"


def split_halves(fingerprint: str, query_ids: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """Whether each query is in the sealed half, bool[N]; None for fewer than two queries, which have no halves.

    Queries are ordered by blake2b(fingerprint, id); the second half of that order is sealed, so that the halves differ
    by at most one query. The order of `query_ids` does not matter.

    Args:
        fingerprint: of the suite's contents.
        query_ids: all of the suite's, each once.
    """
    if len(query_ids) < 2:
        return None
    keys = [half_key(fingerprint, one) for one in query_ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    sealed_N = np.zeros(len(keys), dtype=bool)
    sealed_N[order[(len(keys) + 1) // 2 :]] = True
    return sealed_N


def shown_queries(fingerprint: str, query_ids: Sequence[str], queries: Sequence[str] | None) -> npt.NDArray[np.bool_]:
    """Whether each query may be shown, bool[N]: of the discovery half, and sealed in no other suite that shares it.

    Halves follow a suite's contents, so that a sample of a suite has other halves than the whole.

    Args:
        fingerprint, query_ids: as `split_halves`.
        queries: their texts; None where they are gone, so that nobody sees them.
    """
    sealed_N = split_halves(fingerprint, query_ids)
    open_N = np.ones(len(query_ids), dtype=bool) if sealed_N is None else ~sealed_N
    return open_N if queries is None else open_N & ~sealed_elsewhere(fingerprint, query_ids, queries)
