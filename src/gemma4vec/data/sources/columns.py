"""Columns of a table: which one holds the query, which ones the positives and negatives.

These layouts are recognized by column names: our own rows; pairs, triplets and n-tuples of sentence-transformers
(anchor, positive, negative, negative_2, ...); F2LLM (query, passage, negative_1 to negative_24, as texts or as
`..._input_ids`); triplets of Gemma-Embed (a, p, n, as texts or as token ids and masks).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma4vec.data.rows.rows import NOTES
from gemma4vec.data.rows.scores import scores_from_cells
from gemma4vec.errors import InputError
from gemma4vec.recipe.sources import Columns
from gemma4vec.text.sanitize import sanitize

QUERIES = ("query", "anchor", "question", "a", "sentence1", "sentence_A")
POSITIVES = ("pos", "positive", "passage", "answer", "document", "p", "sentence2", "sentence_B")
NEGATIVES = ("n",)
# A hard negative, one of several or all: neg, neg_1, negative1, negatives, hard_negative, hard_negative_2.
NEGATIVE = re.compile(r"(hard[_ -]?)?neg(ative)?s?([_ -]?[0-9]{1,6})?", re.ASCII)
TEXTS = ("text", "sentence", "texts")
TOKENS = ("", "_input_ids", "_ids")
LONGEST_NAME = 60  # characters of a column's name in a message
LONGEST_NUMBER = 18  # digits; longer numbers are no token ids, and Python refuses to read very long ones
# A table with one of these may have bad pairs, so it is never guessed at.
JUDGED = ("label", "score", "similarity_score")


@dataclass(frozen=True)
class ColumnMap:
    """Names of a table's columns by content: `text` for plain texts, the others for rows."""

    query: str = ""
    pos: tuple[str, ...] = ()
    neg: tuple[str, ...] = ()
    title: str | None = None
    task: str | None = None
    group: str | None = None
    text: str | None = None
    scores: tuple[str, ...] = ()

    @property
    def used(self) -> list[str]:
        """Names of the columns that are read, except masks."""
        single = (self.query, *self.pos, *self.neg, self.title, self.task, self.group, self.text, *self.scores)
        return [name for name in single if name]

    def record(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """The value of a record (`data.rows.records.Record`) from a table's row."""
        if self.text is not None:
            return {"text": _text(self.text, cells)}
        pos, negatives = _all(self.pos, cells), _all(self.neg, cells)
        present = [text not in (None, "") for text in negatives]
        neg = [text for text, keep in zip(negatives, present, strict=True) if keep]
        title = cells.get(self.title) if self.title else None
        if title and len(pos) == 1 and isinstance(pos[0], str):
            pos = [{"text": pos[0], "title": title}]
        value = {"query": _text(self.query, cells), "pos": pos, "neg": neg}
        for key, column in (("task", self.task), ("group", self.group)):
            if column is not None:
                value[key] = cells.get(column)
        if self.scores:
            found = [cells.get(column) for column in self.scores]
            value["scores"] = scores_from_cells(found, self.scores[0], len(pos), present)
        return value


def map_columns(names: Sequence[str], wanted: Columns | None, where: str, *, plain: bool = False) -> ColumnMap:
    """Map a table's columns, by the recipe's `columns` or by their names.

    Raises:
        InputError: two columns have one name, the table lacks a column that the recipe names, or no known layout fits.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: two columns are called {twice!r}; give each its own name")
    if wanted is not None:
        mapped = ColumnMap(
            wanted.query or "",
            _many(wanted.pos),
            _many(wanted.neg),
            wanted.title,
            wanted.task,
            wanted.group,
            wanted.text,
            _many(wanted.scores),
        )
        missing = next((name for name in mapped.used if name not in names), None)
        if missing is not None:
            raise InputError(f"{where}: no column {missing!r}; the columns are {_list_names(names)}")
        return mapped
    found = _plain(names) if plain else _rows(names)
    if found is None:
        example = "{text: ...}" if plain else "{query: ..., pos: ...}"
        judged = next((name for name in JUDGED if name in names), None)
        why = f"column {judged!r} may mark some pairs as bad" if judged else "no known layout has these"
        raise InputError(
            f"{where}: columns {_list_names(names)}: {why}; name the columns to read: columns: {example} in the source"
        )
    return found


def unread_columns(mapped: ColumnMap, names: Sequence[str], wanted: Columns | None) -> tuple[str, ...]:
    """Columns that nothing reads, to be reported; none if the recipe names the columns, since that is a choice."""
    if wanted is not None:
        return ()
    read = {*mapped.used, *(_mask_of(name) for name in mapped.used), *NOTES}
    return tuple(sanitize(name) for name in names if name not in read)


def _rows(names: Sequence[str]) -> ColumnMap | None:
    if any(name in names for name in JUDGED):
        return None
    for ending in TOKENS:
        query = next((name + ending for name in QUERIES if name + ending in names), None)
        pos = next((name + ending for name in POSITIVES if name + ending in names), None)
        if query is None or pos is None:
            continue
        neg = [name for name in names if _is_negative(name, ending)]
        optional = {name: name for name in ("task", "group") if name in names}
        title = "title" if "title" in names and not ending else None
        scores = ("scores",) if "scores" in names else ()
        return ColumnMap(query, (pos,), tuple(sorted(neg, key=_number)), title, **optional, scores=scores)
    return None


def _is_negative(name: str, ending: str) -> bool:
    bare = name.removesuffix(ending)
    return name.endswith(ending) and (bare in NEGATIVES or NEGATIVE.fullmatch(bare) is not None)


def _number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found.group()) if found else 0


def _plain(names: Sequence[str]) -> ColumnMap | None:
    """The only column, or the first whose name is one of texts or queries."""
    named = [name for name in (*TEXTS, *QUERIES, "queries") if name in names]
    chosen = named[0] if named else names[0] if len(names) == 1 else None
    return None if chosen is None else ColumnMap(text=chosen)


def _many(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _all(columns: Sequence[str], cells: Mapping[str, Any]) -> list[Any]:
    texts: list[Any] = []
    for column in columns:
        value = _text(column, cells)
        texts += value if isinstance(value, list) else [value]
    return texts


def _text(column: str, cells: Mapping[str, Any]) -> Any:
    """A cell's text, or its token ids without those that the cell's mask excludes."""
    value = cells.get(column)
    tokens = column.endswith(("_ids", "_input_ids")) or column == "input_ids"
    if isinstance(value, str) and value and tokens:
        value = _numbers(value)
        if value is None:
            return {"input_ids": None}  # row validation rejects this and names the row
    if not isinstance(value, list) or not value or not isinstance(value[0], int):
        return {"input_ids": value} if tokens and isinstance(value, list) else value
    mask = cells.get(_mask_of(column))
    if mask is None:
        return {"input_ids": value}
    shown = _numbers(mask) if isinstance(mask, str) else mask
    if not isinstance(shown, list) or len(shown) != len(value):
        return {"input_ids": None}
    return {"input_ids": [one for one, keep in zip(value, shown, strict=True) if keep]}


def _mask_of(column: str) -> str:
    return re.sub(r"(_input)?_ids$", "_mask", column)


def _numbers(cell: str) -> list[int] | None:
    """Parse `[2, 651, 603]`, `2 651 603` or `2,651,603`; None if it is none of these."""
    bare = cell.strip().strip("[]()")
    found = re.findall(r"[0-9]+", bare)
    if not re.fullmatch(r"\s*[0-9]+(?:[\s,]+[0-9]+)*[\s,]*", bare) or max(map(len, found)) > LONGEST_NUMBER:
        return None
    return [int(one) for one in found]


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name)[:LONGEST_NAME] for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"
