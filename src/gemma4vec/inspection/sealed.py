"""Two halves of a suite's queries: one to find slices on, one sealed until a slice is confirmed.

The half of a query follows from a hash of the suite's contents and the query's id, so that nobody chooses it and every
machine has the same. The seal is a convention with a record, not a lock: the suite's files lie open.

Without the second half the worst of a dozen clusters of queries looks "significant" in 30 to 62% of pure noise.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

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
    keys = [hashlib.blake2b(f"{fingerprint}\0{one}".encode("utf-8", "surrogatepass")).digest() for one in query_ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    sealed_N = np.zeros(len(keys), dtype=bool)
    sealed_N[order[(len(keys) + 1) // 2 :]] = True
    return sealed_N
