"""`/`: all runs of the ledger, newest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ui.content.paging import Paging
from gemma4vec.ui.window import Window

SHOWN = 100
SUITES = 3  # in a sentence
_BRIEF: tuple[str, ...] = (
    "run_id",
    "name",
    "created",
    "recipe_id",
    "status",
    "hypothesis",
    "scores",
    "further_looks",
    "decision",
)
_BRIEF += ("words", "path", "deleted", "seed", "cost")
SORTS = {"newest": "newest first", "oldest": "oldest first", "name": "name"}


def run_list_page(window: Window, request: Request) -> Response:
    """The page."""
    wanted = request.query_params
    runs = window.runs.all()
    found = filter_runs(runs, wanted.get("q", ""), wanted.get("decision", ""), wanted.get("sort", "newest"))
    paging = Paging.of(request, len(found), SHOWN)
    rows = [describe_run(run) for run in found[paging.first : paging.last]]
    suites = sorted({suite for run in runs for suite in run["scores"]})
    values = {
        "title": "Runs",
        "rows": rows,
        "total": len(runs),
        "paging": paging,
        "wanted": wanted,
        "sorts": {**SORTS, **{f"score:{suite}": f"nDCG@10 on {suite}" for suite in suites}},
        "decisions": ["keep", "drop", "repeat", "none"],
    }
    return window.page(request, "runs.html", values)


def api_runs(window: Window, request: Request) -> Response:
    """`/api/runs`: the same as JSON, all of them."""
    return window.json([{name: run.get(name) for name in _BRIEF} for run in window.runs.all()])


def filter_runs(runs: Sequence[dict[str, Any]], words: str, decision: str, sort: str) -> list[dict[str, Any]]:
    """The runs whose names, ids, suites or hypothesis have all words, with one decision, in one order."""
    parts = words.lower().split()
    found = [
        run
        for run in runs
        if all(part in _searched(run) for part in parts) and (not decision or (run["decision"] or "none") == decision)
    ]
    if sort.startswith("score:"):
        suite = sort.removeprefix("score:")
        return sorted(found, key=lambda run: -(run["scores"].get(suite) or 0.0))  # null: was not a number
    if sort == "name":
        return sorted(found, key=lambda run: str(run["name"]))
    return found[::-1] if sort == "oldest" else found


def _searched(run: Mapping[str, Any]) -> str:
    texts = (run["run_id"], run["name"], run["recipe_id"], run["hypothesis"], run["status"], *run["scores"])
    return " ".join(str(one) for one in texts if one).lower()


def describe_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a row shows of a run."""
    seconds = (run["cost"] or {}).get("seconds")
    last = (run.get("results") or {}).get("last_evaluation") or {}
    return {
        "id": run["run_id"],
        "name": run["name"] or run["run_id"],
        "created": str(run["created"] or "")[:16].replace("T", " "),
        "made": str(run["created"] or ""),
        "recipe": str(run["recipe_id"] or "")[:8],
        "seed": run["seed"],
        "state": state_of(run),
        "scores": sorted(run["scores"].items()),
        "further": run["further_looks"],
        "dev": last if isinstance(last.get("ndcg@10"), float) and isinstance(last.get("low"), float) else None,
        "minutes": seconds / 60 if isinstance(seconds, int | float) else None,
        "decision": run["decision"],
        "words": run["words"],
        "contamination": contamination_of(run),
    }


def contamination_of(run: Mapping[str, Any]) -> str:
    """What is known by now of the overlap of a run's data with suites, and what else is in it, in a few words.

    The mark of a suite's newest score says it, as on the pages that show the score; before there is one, what the
    training found when it began. The models that it was made from bring data of their own, or nobody recorded theirs.
    """
    own, inherited = _own_contamination(run), run.get("inherited")
    if not isinstance(inherited, dict):
        return own
    trained, unknown = (", ".join(map(str, inherited.get(key) or ())) for key in ("data", "unknown"))
    more = f"; not counted: the data of {trained}" if trained else ""
    return own + more + (f"; unknown: the data of {unknown}" if unknown else "")


def _own_contamination(run: Mapping[str, Any]) -> str:
    began = run.get("contamination")
    touched = {
        suite: sum(int(one.get("touched_queries") or 0) for one in sources.values() if isinstance(one, dict))
        for suite, sources in (began if isinstance(began, dict) else {}).items()
        if isinstance(sources, dict)
    }
    unchecked = set[str]()
    for suite, mark in (run.get("marks") or {}).items():
        touched.pop(suite, None)  # the score's own mark is newer
        known = mark if isinstance(mark, dict) else {}
        if known.get("sources"):
            by_task = known.get("touched_queries")
            lists = by_task.values() if isinstance(by_task, dict) else ()
            touched[suite] = sum(len(ids) for ids in lists if isinstance(ids, list))
        if known.get("unchecked") or not known.get("sources"):
            unchecked.add(suite)
    hit = [f"{suite}: {count:,}" for suite, count in sorted(touched.items()) if count]
    clean = [suite for suite, count in sorted(touched.items()) if not count and suite not in unchecked]
    parts = [f"touches queries of {', '.join(hit)}"] if hit else []
    parts += [f"touches no query of {_listed(clean)}"] if clean else []
    parts += [f"not checked against {_listed(sorted(unchecked))}"] if unchecked else []
    return "; ".join(parts) or "not checked yet"


def _listed(suites: Sequence[str]) -> str:
    more = f" and {len(suites) - SUITES} more" if len(suites) > SUITES else ""
    return ", ".join(suites[:SUITES]) + more


def state_of(run: Mapping[str, Any]) -> str:
    """finished, training, stopped (nobody holds it, and it is not finished) or deleted."""
    if not Path(run["path"]).is_dir():
        return "deleted"
    if run["status"] == "finished":
        return "finished"
    try:
        held = RunFolder(Path(run["path"])).is_held()
    except OSError:
        return str(run["status"])
    return "training" if held else "stopped"
