"""`/runs/ID`: one run, also while it trains."""

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.errors import Gemma4VecError
from gemma4vec.evaluation.comparison.comparison_count import NotComparedError
from gemma4vec.evaluation.results.result import METRICS_FILE, load_result
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.records import recipe_tree
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.report.charts.score_charts import draw_learning_curve, draw_throughput
from gemma4vec.report.content.run_data import MODELS, PRIMARY, read_run
from gemma4vec.report.content.stop_looks import read_looks
from gemma4vec.report.content.time_left import time_left
from gemma4vec.report.content.training_log import TrainingLog, read_training
from gemma4vec.report.run_page import run_values
from gemma4vec.report.templating import draw_chart
from gemma4vec.ui.pages.run_list import contamination_of, state_of
from gemma4vec.ui.window import Window

SHOWN_EVALUATIONS = 20


def run_page(window: Window, request: Request) -> Response:
    """The page. A run whose folder is gone shows what the ledger has.

    Raises:
        InputError: the ledger has no such run.
    """
    row = window.runs.find(request.path_params["run_id"])
    values: dict[str, Any] = {
        "title": str(row["name"] or row["run_id"]),
        "row": row,
        "state": state_of(row),
        "contamination": contamination_of(row),
        "decisions": decisions_of(window, row["run_id"]),
        "problem": "",
        "uncompared": "",
        "live": None,
        "report": None,
        "inspections": [],
    }
    try:
        run = window.runs.folder(row["run_id"])
        values["live"] = live_values(window, run, state_of(row))
        values["report"], values["uncompared"] = _report(run.path)
        own = run.path.resolve()
        values["inspections"] = [
            one for one in window.inspections.all() if own in one.folder.resolve().parents and not one.damaged
        ]
    except (Gemma4VecError, OSError) as error:
        values["problem"] = " ".join(str(error).split())
    return window.page(request, "run_page.html", values)


def live_part(window: Window, request: Request) -> Response:
    """The part of the page that changes while a run trains; `Server-Timing` says the processor time that it took.

    Raises:
        InputError: the ledger has no such run, or its folder is gone.
    """
    began = time.thread_time()
    run = window.runs.folder(request.path_params["run_id"])
    state = state_of(window.runs.find(request.path_params["run_id"]))
    reply = window.page(request, "run_live.html", {"title": "live", "live": live_values(window, run, state)})
    reply.headers["Server-Timing"] = f"draw;dur={1000 * (time.thread_time() - began):.1f}"
    return reply


def decisions_of(window: Window, run_id: str) -> list[dict[str, Any]]:
    """All decisions about a run, oldest first."""
    with open_ledger(window.home) as ledger:
        return ledger.rows("SELECT time, decision, words FROM decisions WHERE run_id = ? ORDER BY time, seq", (run_id,))


def live_values(window: Window, run: RunFolder, state: str) -> dict[str, Any]:
    """Curve, evaluations, stop rule and progress, from the events so far."""
    events, offset = window.logs.read(run.path)
    log = read_training(events)
    last = next((one for one in reversed(events) if one.get("event") == "step"), {})
    try:
        recipe = recipe_tree(run.recipe_text)
    except (Gemma4VecError, OSError):
        recipe = {}  # the page's other part says so
    references = find_references(run, log)
    return {
        "run_id": run.path.name,
        "offset": offset,
        "torn": len(events.torn),
        "state": state,
        "last": last,
        "progress": time_left(events, recipe),
        "curve": draw_chart(lambda width: draw_learning_curve(log, width, references)) if len(log.steps) > 1 else None,
        "throughput": draw_chart(lambda width: draw_throughput(log, width)),
        "evaluations": log.evaluations[-SHOWN_EVALUATIONS:],
        "references": references,
        "stop": read_looks(events),
        "costs": log.costs(),
    }


def find_references(run: RunFolder, log: TrainingLog) -> list[tuple[str, float]]:
    """(name, nDCG@10) of BM25 and the untrained base on the suite that the training is evaluated on."""
    suites = list(dict.fromkeys(one.suite for one in log.evaluations))
    found = []
    for suite in suites[:1]:  # several suites share one panel, where more lines would not be read
        for model in ("bm25", "untrained"):
            file = run.evaluation(model, suite) / METRICS_FILE
            if file.is_file() and (score := _score(file.parent, file.stat().st_mtime_ns)) is not None:
                found.append((MODELS[model], score))
    return found


@lru_cache(maxsize=256)
def _score(folder: Path, changed: int) -> float | None:
    """A stored result's nDCG@10, read again when the file has changed."""
    try:
        return load_result(folder).mean.get(PRIMARY)
    except Gemma4VecError:
        return None  # a damaged reference is not drawn; the page about the run says what is damaged


def _report(folder: Path) -> tuple[dict[str, Any], str]:
    """The report's values; and, where a comparison is not in the ledger yet, why there are no verdicts."""
    try:
        return run_values(read_run(folder, only_known=True), examples=False), ""
    except NotComparedError as error:
        return run_values(read_run(folder, compared=False), examples=False), str(error)
