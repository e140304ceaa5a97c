"""`/ledger`: looks, comparisons, decisions, freezes, locks, opened slices."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.ledger.comparison_count import count_looks
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ui.window import Window

NEWEST = 200
_QUERIES = {
    "comparisons": "SELECT time, suite, metric, a, b, difference, p, family, verdict FROM comparisons",
    "decisions": "SELECT time, run_id, decision, words FROM decisions",
    "freezes": "SELECT time, recipe_id, run_id, words FROM freezes",
    "locks": "SELECT time, suite, words FROM locks",
    "slices": "SELECT time, json_extract(body, '$.suite') AS suite, json_extract(body, '$.saved.rule') AS rule, "
    "json_extract(body, '$.model') AS model FROM records WHERE kind = 'slice'",
    "openings": "SELECT time, json_extract(body, '$.suite') AS suite, json_extract(body, '$.rule') AS rule, "
    "json_extract(body, '$.a') AS model FROM records WHERE kind = 'exposure'",
}


def ledger_page(window: Window, request: Request) -> Response:
    """The page."""
    return window.page(request, "ledger.html", {"title": "Ledger", "newest": NEWEST, **_read(window)})


def api_ledger(window: Window, request: Request) -> Response:
    """`/api/ledger`: the same as JSON."""
    return window.json(_read(window))


def _read(window: Window) -> dict[str, Any]:
    with open_ledger(window.home) as ledger:
        return {"looks": count_looks(ledger), **{name: _newest(ledger, query) for name, query in _QUERIES.items()}}


def _newest(ledger: Ledger, query: str) -> list[dict[str, Any]]:
    return ledger.rows(f"{query} ORDER BY time DESC, seq DESC LIMIT ?", (NEWEST,))
