"""A set of 64-bit hashes that takes 11 to 21 bytes for each; a Python set takes 60 or more."""

from array import array

from gemma4vec.files import sha256_text

_EMPTY = 0
_MIN_SLOTS = 2**10


class HashSet:
    """A hash table with open addressing and linear probing, at most three quarters full.

    A hash of 0 is stored as 1, because 0 marks an empty slot.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * _MIN_SLOTS))
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, key: int) -> bool:
        """Add a hash, 0 to 2^64 - 1; return whether it was new."""
        if 4 * self._size >= 3 * len(self._table):
            self._grow()
        if not _insert(self._table, key or 1):
            return False
        self._size += 1
        return True

    def _grow(self) -> None:
        larger = array("Q", bytes(16 * len(self._table)))
        for key in self._table:
            if key != _EMPTY:
                _insert(larger, key)
        self._table = larger


def short_hash(*parts: str) -> int:
    """Return a 64-bit hash of the parts; among seven million texts, any two collide with probability 1e-6."""
    return int(sha256_text(*parts)[:16], 16)


def _insert(table: "array[int]", key: int) -> bool:
    mask = len(table) - 1
    slot = key & mask
    while (found := table[slot]) != _EMPTY:
        if found == key:
            return False
        slot = (slot + 1) & mask
    table[slot] = key
    return True
