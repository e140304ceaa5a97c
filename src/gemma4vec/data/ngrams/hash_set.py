"""A set of 64-bit hashes that takes 8 to 16 bytes for each, where Python's takes 60 or more."""

from array import array

from gemma4vec.files import sha256_text

_EMPTY = 0
_LEAST = 2**10


class HashSet:
    """Hashes that were seen, in a table with open addressing and linear probing; at most three quarters of it are full.

    A hash of 0 counts as 1.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * _LEAST))
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, key: int) -> bool:
        """Put in a hash, 0 to 2^64 - 1; whether it was new."""
        if 4 * self._size >= 3 * len(self._table):
            self._grow()
        if not _put(self._table, key or 1):
            return False
        self._size += 1
        return True

    def _grow(self) -> None:
        larger = array("Q", bytes(16 * len(self._table)))
        for key in self._table:
            if key != _EMPTY:
                _put(larger, key)
        self._table = larger


def short_hash(*parts: str) -> int:
    """64 bits: of seven million texts, two different ones are taken for one with probability 1e-6."""
    return int(sha256_text(*parts)[:16], 16)


def _put(table: "array[int]", key: int) -> bool:
    mask = len(table) - 1
    place = key & mask
    while (found := table[place]) != _EMPTY:
        if found == key:
            return False
        place = (place + 1) & mask
    table[place] = key
    return True
