"""The order of a suite's queries that decides which half is sealed: by blake2b(contents, id)."""

import hashlib
from collections.abc import Sequence


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
