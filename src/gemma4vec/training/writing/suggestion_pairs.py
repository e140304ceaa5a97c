"""Pairs for a suggester: a query with titles, and another query; some are held out with all that they share.

Shapes: none; these are texts.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.text.text_hash import words_key

# Largest share of the pairs that is kept from training.
_MOST_HELD_OUT = 0.1


class SuggestionPair(NamedTuple):
    """What is read and what is written.

    Attributes:
        query: the query.
        titles: of its first hits.
        suggestion: another query.
        document: name of the document that the pair was made for; None: it is not known.
    """

    query: str
    titles: tuple[str, ...]
    suggestion: str
    document: str | None


def pairs_of(rows: Iterable[Row]) -> list[SuggestionPair]:
    """The pairs of rows, one for each positive, each once; a suggestion that is the query itself is left out."""
    found: dict[tuple[str, str], SuggestionPair] = {}
    for row in rows:
        query = str(row.query)
        for document in row.pos:
            text = str(document.text)
            key = words_key(query), words_key(text)
            if query.strip() and text.strip() and key[0] != key[1]:
                titles = tuple(line.strip() for line in (document.title or "").splitlines() if line.strip())
                found.setdefault(key, SuggestionPair(query, titles, text, row.group))
    return list(found.values())


def split_pairs(pairs: Sequence[SuggestionPair], wanted: int) -> tuple[list[SuggestionPair], list[SuggestionPair]]:
    """(pairs to train on, pairs that are held out): `wanted` of them at most, and at most a tenth.

    Pairs that share a query or a document stay together. A group's least hash decides whether it is held out, so that
    other data with the same queries most likely holds them out too.
    """
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(_groups(pairs)):
        groups.setdefault(name, []).append(number)
    left = min(wanted, int(_MOST_HELD_OUT * len(pairs)))
    kept: set[int] = set()
    for name in sorted(groups):
        if len(groups[name]) <= left - len(kept):
            kept |= set(groups[name])
    chosen = sorted(kept)
    return [pair for number, pair in enumerate(pairs) if number not in kept], [pairs[number] for number in chosen]


def check_split(pairs: Sequence[SuggestionPair], wanted: int, rows: int, where: str) -> None:
    """Refuse pairs that cannot be split, or that fill no batch.

    Raises:
        InputError: one line that names the recipe's key.
    """
    if not pairs:
        raise InputError(f"{where}.data: no row has a query and another query as a positive")
    trained, kept = split_pairs(pairs, wanted)
    if wanted and not kept and len(pairs) >= 10:
        raise InputError(
            f"{where}.task.held_out: no pair can be held out, since every query shares a document with too many "
            "others; give more queries, or set it to 0"
        )
    if len(trained) < rows:
        raise InputError(f"{where}.batch.rows: {rows} pairs asked for, the data has {len(trained)}")


def _groups(pairs: Sequence[SuggestionPair]) -> list[str]:
    """Of each pair the name of its group: the least hash among the queries that are linked to its own by documents."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    queries = [words_key(pair.query) for pair in pairs]
    for query, pair in zip(queries, pairs, strict=True):
        one, other = root(query), root(query if pair.document is None else f"~{pair.document}")
        parent[max(one, other)] = min(one, other)  # hashes have no "~", which is greater than all of their digits
    return [root(query) for query in queries]
