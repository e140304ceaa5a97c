"""The page about two models as a reading list: flipped queries with the first ten documents of both, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.report.content.run_data import METRICS, shorten
from gemma4vec.report.templating import render_template, write_page

QUERY_CHARACTERS, DOCUMENT_CHARACTERS = 300, 240


def write_flips_page(out: Path, found: Mapping[str, Any], suite: RetrievalSuite) -> Path:
    """Write the page about what `inspection.flips.find_flips` returned.

    Raises:
        WorkError: the file cannot be written.
    """
    return write_page(out, render_flips(found, suite))


def render_flips(found: Mapping[str, Any], suite: RetrievalSuite) -> str:
    """Return the page as HTML."""
    texts = dict(zip(suite.query_ids, suite.queries, strict=True))
    place = {key: index for index, key in enumerate(suite.corpus_ids)}
    rows = []
    for one in found["list"]:
        tops = [_column(one[side], one["right"], suite, place) for side in ("top_a", "top_b")]
        rows.append(
            {
                **one,
                "query": shorten(texts.get(one["query_id"], ""), QUERY_CHARACTERS),
                "ranks": _pairs(*tops),
                "right_texts": [_text(key, suite, place) for key in one["right"][:3]],
            }
        )
    values = {"found": found, "metric": METRICS.get(found["metric"], found["metric"]), "rows": rows}
    return render_template("flips.html", values)


def _column(
    top: Sequence[Mapping[str, Any]], right: Sequence[str], suite: RetrievalSuite, place: Mapping[str, int]
) -> list[dict[str, Any]]:
    return [{**one, "right": one["doc_id"] in right, "text": _text(one["doc_id"], suite, place)["text"]} for one in top]


def _pairs(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[tuple[int, Any, Any]]:
    """Rank by rank; the shorter list has None at its end."""
    longest = max(len(a), len(b))
    return [
        (rank + 1, a[rank] if rank < len(a) else None, b[rank] if rank < len(b) else None) for rank in range(longest)
    ]


def _text(key: str, suite: RetrievalSuite, place: Mapping[str, int]) -> dict[str, str]:
    if key not in place:
        return {"id": key, "text": ""}
    document = suite.corpus[place[key]]
    text = f"{document.title}. {document.text}" if document.title else document.text
    return {"id": key, "text": shorten(text, DOCUMENT_CHARACTERS)}
