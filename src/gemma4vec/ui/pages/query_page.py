"""`/inspect/KEY/queries/ROW`: one query of the open half, and what both models found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.data.ngrams.language import UNDETERMINED
from gemma4vec.errors import InputError
from gemma4vec.inspection.attributes import ATTRIBUTES
from gemma4vec.inspection.kinds import KINDS
from gemma4vec.inspection.labels.judgments import load_judgments
from gemma4vec.inspection.predicates import TOPIC, topic_words
from gemma4vec.inspection.sealed import DISCOVERY
from gemma4vec.report.content.run_data import METRICS
from gemma4vec.ui.content.query_list import KEPT, Wanted, difference
from gemma4vec.ui.content.ranked_documents import Shown, describe, first_ten
from gemma4vec.ui.content.stored_inspections import Columns, StoredInspection, language_of
from gemma4vec.ui.pages.failures import selected_queries
from gemma4vec.ui.window import Window


def query_page(window: Window, request: Request) -> Response:
    """The page.

    Raises:
        InputError: an unknown inspection or query, or a sealed one.
    """
    found, values = _read(window, request)
    wanted = Wanted.of(request.query_params)
    kept = urlencode({name: getattr(wanted, name) for name in KEPT if getattr(wanted, name)})
    texts = window.suites.of_inspection(found.about)
    rows = selected_queries(window, found, window.inspections.columns(found), wanted, texts)
    place = rows.index(values["row"]) if values["row"] in rows else -1
    neighbors = {
        "before": rows[place - 1] if place > 0 else None,
        "after": rows[place + 1] if 0 <= place < len(rows) - 1 else None,
        "place": place + 1,
        "total": len(rows),
    }
    more = {"title": values["query"] or values["id"], "found": found, "kept": kept, "neighbors": neighbors}
    return window.page(request, "query.html", {**values, **more, "kind_words": KINDS})


def api_query(window: Window, request: Request) -> Response:
    """`/api/inspect/KEY/queries/ROW`: the same as JSON."""
    _, values = _read(window, request)
    plain = [{**side, "documents": [asdict(one) for one in side["documents"]]} for side in values["sides"]]
    return window.json({**values, "sides": plain, "right": [asdict(one) for one in values["right"]]})


def _read(window: Window, request: Request) -> tuple[StoredInspection, dict[str, Any]]:
    found = window.inspections.find(request.path_params["key"])
    columns, row = window.inspections.columns(found), request.path_params["row"]
    if not 0 <= row < len(columns["query_id"]):
        raise InputError(f"this inspection has no query {row}")
    if columns["half"][row] != DISCOVERY:
        raise InputError(
            "this query is in the sealed half, which nobody looks at; gemma4vec inspect confirm SLICE opens it for one "
            "slice, as a whole"
        )
    key = columns["query_id"][row]
    texts = window.suites.of_inspection(found.about)
    if row not in selected_queries(window, found, columns, Wanted(), texts):
        raise InputError("this query is in the sealed half of another suite that has it, and is not shown")
    query = texts.queries.get(key, "")
    judged = window.inspections.judged(found, key)
    grades = {one["doc_id"]: int(one["grade"]) for one in judged}
    lists = _lists(found, columns, row, [first_ten(found, side, row, key, texts) for side in ("model", "against")])
    right = [(one["doc_id"], one["rank"], one["score"]) for one in judged if one["grade"] >= 1]
    ids = list(dict.fromkeys(name for ranked in (*(one[1] for one in lists), right) for name, _, _ in ranked))
    stored = window.inspections.documents(found, ids)
    judgments = {} if texts.suite is None else load_judgments(texts.suite)
    verdicts = {document: grade for (asked, document), grade in judgments.items() if asked == key}

    def shown(ranked: Sequence[tuple[str, int | None, float | None]]) -> list[Shown]:
        return describe(ranked, grades, stored, texts, query)

    return found, {
        "row": row,
        "id": key,
        "query": query,
        "metric": METRICS.get(found.metric, found.metric),
        "score": columns[found.metric][row],
        "difference": difference(columns, found.metric, row),
        "rank": columns["gold_rank"][row],
        "margin": columns["margin"][row],
        "kinds": columns["kinds"][row] or [],
        "language": language_of(columns, row),
        "attributes": _attributes(columns, row),
        "sides": [{"name": name, "documents": shown(ranked), "note": note} for name, ranked, note in lists],
        "right": shown(right[:10]),
        "right_count": len(right),
        "no_texts": texts.problem,
        "verdicts": verdicts,
        "can_judge": texts.suite is not None,
        "queries": found.about["queries"],
    }


def _lists(
    found: StoredInspection, columns: Columns, row: int, tops: Sequence[list[tuple[str, float]] | None]
) -> list[tuple[str, list[tuple[str, int | None, float | None]], str]]:
    """(model, its ranked documents, what is missing) of each side."""
    made: list[tuple[str, list[tuple[str, int | None, float | None]], str]] = []
    for side, top in zip(("model", "against"), tops, strict=True):
        about = found.about[side]
        if about is None:
            continue
        if top is not None:
            made.append((about["name"], [(key, place, score) for place, (key, score) in enumerate(top, 1)], ""))
            continue
        first = columns["top1_doc"][row] if side == "model" else None
        ranked: list[tuple[str, int | None, float | None]] = (
            [(first, 1, columns["top1_score"][row])] if first is not None else []
        )
        made.append((about["name"], ranked, "The first ten are gone from the cache; inspect again to see them."))
    return made


def _attributes(columns: Mapping[str, list[Any]], row: int) -> list[tuple[str, str, Any]]:
    """(name, what it is, value) of each attribute of the query."""
    return [
        (name, one.words, _readable(name, columns[name][row]))
        for name, one in ATTRIBUTES.items()
        if name in columns and columns[name][row] is not None
    ]


def _readable(name: str, value: Any) -> Any:
    """An attribute's value as a person reads it."""
    if name == TOPIC and isinstance(value, str):
        return topic_words(value)
    return "unsure" if value == UNDETERMINED else value
