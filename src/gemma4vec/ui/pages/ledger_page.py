"""`/ledger`: looks, comparisons, decisions, freezes, locks, opened slices."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.ledger.comparison_count import count_looks
from gemma4vec.ledger.ledger import Ledger, open_ledger
from gemma4vec.ui.window import Window

NEWEST = 200
_QUERIES = {
    "comparisons": "SELECT time, suite, metric, a, b, fingerprint_a, fingerprint_b, difference, p, family, verdict "
    "FROM comparisons",
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
        found: dict[str, Any] = {name: _newest(ledger, query) for name, query in _QUERIES.items()}
        runs = _runs_of_models(ledger)
        for one in found["comparisons"]:
            for side in ("a", "b"):
                one[f"run_{side}"] = runs.get(one.pop(f"fingerprint_{side}"))
        return {"looks": count_looks(ledger), **found}


def _runs_of_models(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """Fingerprint of a model -> id and name of the run that it is of; BM25 and models of several runs have none."""
    rows = ledger.rows(
        "SELECT model_fingerprint AS model, min(run_id) AS id, runs.name AS name "
        "FROM evaluations JOIN runs USING (run_id) WHERE model <> 'bm25' "
        "GROUP BY model_fingerprint HAVING count(DISTINCT run_id) = 1"
    )
    return {one["model"]: {"id": one["id"], "name": one["name"]} for one in rows if one["model"]}


def _newest(ledger: Ledger, query: str) -> list[dict[str, Any]]:
    return ledger.rows(f"{query} ORDER BY time DESC, seq DESC LIMIT ?", (NEWEST,))
