"""Drop lists: rows and negatives to leave out. `gemma4vec data check --drop` writes them, a source's `drop` reads them.

A list is JSONL with one object for each faulty row: `source`, `row` (from 1), `key` (hash of the row's contents),
`drop` and `reasons`. `drop` is "row", "copies" (all but the first row with these contents), or positions of negatives.
The key identifies the row, so a list remains valid after rows are added, moved or removed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gemma4vec.data.rows.jsonl import read_lines
from gemma4vec.data.rows.rows import Row, content_hash
from gemma4vec.errors import InputError

ROW, COPIES = "row", "copies"


@dataclass(frozen=True)
class Drop:
    """What to leave out of the rows with one key: all rows, all but the first, or some negatives."""

    whole: bool = False
    copies: bool = False
    negatives: frozenset[int] = frozenset()


Drops = Mapping[str, Drop]
"""Key of a row -> what to leave out."""


def row_key(row: Row) -> str:
    """The key of a row: 64 bits of its content hash, in hexadecimal."""
    return content_hash([row])[:16]


def read_drops(path: Path) -> Drops:
    """Read a drop list: key of a row -> what to leave out.

    Raises:
        InputError: the file cannot be read, or a line is not an entry; names the line.
    """
    drops: dict[str, Drop] = {}
    for number, value, reason in read_lines(path):
        entry = value or {}
        key, what = entry.get("key"), entry.get("drop")
        places = isinstance(what, list) and all(type(place) is int and place >= 0 for place in what)
        if not isinstance(key, str) or not (what in (ROW, COPIES) or places):
            wrong = reason or 'expected an object with "key" and "drop" ("row", "copies" or a list of positions)'
            raise InputError(f"{path} line {number}: {wrong}; make the list again with gemma4vec data check --drop")
        known = drops.get(key, Drop())
        drops[key] = Drop(
            known.whole or what == ROW,
            known.copies or what == COPIES,
            known.negatives | frozenset(what if isinstance(what, list) else ()),
        )
    return drops


def apply_drops(rows: Iterable[Row], drops: Drops) -> Iterator[Row]:
    """The remaining rows, some with fewer negatives."""
    seen: set[str] = set()
    for row in rows:
        key = row_key(row)
        drop = drops.get(key)
        if drop is None:
            yield row
        elif not drop.whole and not (drop.copies and key in seen):
            seen.add(key)
            yield without_negatives(row, drop.negatives)


def without_negatives(row: Row, places: Iterable[int]) -> Row:
    """The row without its negatives at these positions."""
    left_out = set(places)
    neg = [document for place, document in enumerate(row.neg) if place not in left_out]
    return replace(row, neg=neg, scores=None if row.scores is None else row.scores.without(left_out))
