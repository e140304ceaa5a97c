"""The plain texts of rows: what a model is adapted on before it learns from rows."""

from collections.abc import Iterable, Iterator
from typing import Literal

from gemma4vec.data.rows import Row
from gemma4vec.model.prompts import Prompts


def texts_of_rows(rows: Iterable[Row], which: Literal["all", "queries", "documents"]) -> Iterator[str]:
    """The texts of rows, without prompts, titles in front of their documents; a text may come several times."""
    plain = Prompts()
    for row in rows:
        if which != "documents":
            yield row.query
        if which != "queries":
            for document in (*row.pos, *row.neg):
                yield plain.for_document(document).text
