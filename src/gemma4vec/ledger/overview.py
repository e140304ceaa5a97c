"""The ledger's runs with their scores and decisions, and the differences between two of them."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.ledger.index import damaged_index_error
from gemma4vec.ledger.ledger import Ledger
from gemma4vec.ledger.records import is_own_model, recipe_tree
from gemma4vec.ledger.run_folder import MANIFEST, RunFolder
from gemma4vec.reading.json_values import JsonError, loads_json

MAIN_METRIC = "ndcg@10"
RUNNING = "running"


def all_runs(ledger: Ledger) -> list[dict[str, Any]]:
    """Return every run as last recorded, oldest first, with "scores", "marks", "further_looks", "decision", "words" and
    "deleted".

    "scores" is suite -> nDCG@10 of the run's own model: the newest evaluation of each suite whose texts were not
    truncated below the model's own limit. "marks" is suite -> the contamination mark of that evaluation
    (`evaluation.scoring.contamination_mark`), or None. "further_looks" is suite -> reason, for scores of a final suite
    that the run had been scored on before.
    """
    runs = [
        _read_run(ledger, row["body"])
        for row in ledger.rows("SELECT records.body FROM runs JOIN records USING (id) ORDER BY created, run_id")
    ]
    decisions = {row["run_id"]: row for row in ledger.rows("SELECT * FROM decisions ORDER BY time, seq")}
    scores: dict[str, dict[str, float | None]] = {}  # None: was not a number
    marks: dict[str, dict[str, dict[str, Any] | None]] = {}
    further: dict[str, dict[str, str]] = {}
    for row in drop_truncated(recorded_evaluations(ledger)):
        if is_own_model(row["model"]) and MAIN_METRIC in row["mean"]:
            scores.setdefault(row["run_id"], {})[row["suite"]] = row["mean"][MAIN_METRIC]
            marks.setdefault(row["run_id"], {})[row["suite"]] = _read_mark(row["contamination"])
            further.setdefault(row["run_id"], {})[row["suite"]] = row["look_again"] or ""
    for run in runs:
        made = decisions.get(run["run_id"])
        run["scores"], run["marks"] = scores.get(run["run_id"], {}), marks.get(run["run_id"], {})
        run["further_looks"] = {suite: why for suite, why in further.get(run["run_id"], {}).items() if why}
        run["decision"], run["words"] = (made["decision"], made["words"]) if made else (None, None)
        run["deleted"] = not (Path(run["path"]) / MANIFEST).is_file()
    return runs


def find_recorded_run(ledger: Ledger, spec: str) -> dict[str, Any]:
    """Find a run by its id, an unambiguous beginning or end of the id, its folder, or "latest".

    Raises:
        InputError: no run or several runs match.
    """
    runs = all_runs(ledger)
    if spec == "latest" and runs:
        return runs[-1]
    place = str(Path(spec).resolve())
    exact = [run for run in runs if spec == run["run_id"] or place == run["path"]]
    fitting = exact or [run for run in runs if run["run_id"].startswith(spec) or run["run_id"].endswith(spec)]
    if not fitting:
        raise InputError(f"the ledger has no run '{spec}'; list them with: gemma4vec runs")
    if len(fitting) > 1:
        some = ", ".join(run["run_id"] for run in fitting[:5])
        raise InputError(f"'{spec}' matches {len(fitting)} runs: {some}; give more of the id")
    return fitting[0]


def with_status_now(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run with its status at this moment: `running` while a process holds its folder and it is not finished.

    What the ledger recorded is how the run last began or ended, and a kill leaves no record.
    """
    if run["status"] == "finished":
        return dict(run)
    try:
        held = RunFolder(Path(run["path"])).is_held()
    except OSError:
        held = False
    return {**run, "status": RUNNING if held else run["status"]}


def newest_evaluations(ledger: Ledger, run_id: str) -> list[dict[str, Any]]:
    """Return the newest evaluation of each model and suite in a run: "model", "suite", "suite_fingerprint", "mean",
    "time", "folder", and "cut_at": the limit in tokens if texts were truncated below the model's own limit."""
    rows = recorded_evaluations(ledger, run_id)
    whole = {row["look"] for row in drop_truncated(rows)}
    for row in rows:
        row["cut_at"] = None if row["look"] in whole else row["max_tokens"]
    newest = {(row["model"], row["suite_fingerprint"], row["cut_at"]): row for row in rows}
    return sorted(newest.values(), key=lambda row: (row["suite"], row["model"], row["cut_at"] or 0))


def recorded_evaluations(ledger: Ledger, run_id: str | None = None) -> list[dict[str, Any]]:
    """Return all evaluations of runs, or of one run, oldest first: columns as in `newest_evaluations`, and "run_id",
    "look", "metric" (the suite's main one), "max_tokens" (truncation limit, or None), "look_again" (the reason of a
    further look at a final suite, or None), "contamination" (the mark as JSON text, or None)."""
    query = (
        "SELECT run_id, recipe_id, model, suite, suite_fingerprint, mean, time, folder, look, "
        "json_extract(settings, '$.metric') AS metric, json_extract(settings, '$.model.max_tokens') AS max_tokens, "
        "json_extract(settings, '$.look_again') AS look_again, "
        "json_extract(settings, '$.contamination') AS contamination "
        "FROM evaluations WHERE run_id "
    )
    where, parameters = ("= ?", [run_id]) if run_id else ("IS NOT NULL", [])
    rows = ledger.rows(f"{query}{where} ORDER BY time, seq", parameters)
    return [{**row, "mean": _read_object(ledger, row["mean"])} for row in rows]


def _read_run(ledger: Ledger, body: str) -> dict[str, Any]:
    run = _read_object(ledger, body)
    if not isinstance(run.get("run_id"), str) or not isinstance(run.get("path"), str):
        raise damaged_index_error(ledger.path, "a run without its id or path")
    return run


def _read_object(ledger: Ledger, text: object) -> dict[str, Any]:
    """Read a JSON object of the index, in whose place a damaged page may have anything."""
    try:
        value = loads_json(text, nonfinite=True) if isinstance(text, str) else None
    except JsonError as fault:
        raise damaged_index_error(ledger.path, fault.reason) from None
    if not isinstance(value, dict):
        raise damaged_index_error(ledger.path, "a record is not an object")
    return value


def _read_mark(text: object) -> dict[str, Any] | None:
    """Read the mark of a score; None where it has none, or something else in its place."""
    with contextlib.suppress(JsonError):
        found = loads_json(text, nonfinite=True) if isinstance(text, str) else None
        return found if isinstance(found, dict) else None
    return None


def drop_truncated(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop the evaluations that truncated texts below the model's own limit.

    A run is evaluated with its own limit or a lower one, so the highest limit is the run's own. Without this filter a
    newer look at 64 tokens would replace the run's score.
    """
    longest: dict[tuple[str, str], int] = {}
    for row in rows:
        longest[_whose(row)] = max(longest.get(_whose(row), 0), row["max_tokens"] or 0)
    return [row for row in rows if (row["max_tokens"] or 0) == longest[_whose(row)]]


def _whose(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["run_id"], "" if is_own_model(row["model"]) else row["model"]


def diff_runs(ledger: Ledger, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Return the differences between two runs, in settings and in scores.

    Returns:
        "recipe", "data", "code", "machine": dotted name -> [value of A, value of B] for values that differ (None:
        absent); "scores": suite -> [score of A, of B] by its main metric, for suites with the same contents;
        "metrics": suite -> that metric; "limits": suite -> [tokens of A, of B], for suites with different truncation
        limits, whose scores cannot be subtracted; "further_looks": suite -> [reason of A, of B], for scores of a final
        suite that the run had been scored on before.
    """
    scores_a, scores_b = (
        {
            row["suite_fingerprint"]: row
            for row in drop_truncated(recorded_evaluations(ledger, run["run_id"]))
            if is_own_model(row["model"])
        }
        for run in (a, b)
    )
    common = [(row, scores_b[key], row["metric"] or MAIN_METRIC) for key, row in scores_a.items() if key in scores_b]
    return {
        "recipe": _differing(recipe_tree(a["recipe"]), recipe_tree(b["recipe"])),
        "data": _differing(_data(a), _data(b)),
        "code": _differing(a["code"], b["code"]),
        "machine": _differing(a["machine"], b["machine"]),
        "scores": {one["suite"]: [one["mean"].get(name), other["mean"].get(name)] for one, other, name in common},
        "metrics": {one["suite"]: name for one, _, name in common},
        "further_looks": {
            one["suite"]: [one["look_again"], other["look_again"]]
            for one, other, _ in common
            if one["look_again"] or other["look_again"]
        },
        "limits": {
            one["suite"]: [one["max_tokens"], other["max_tokens"]]
            for one, other, _ in common
            if one["max_tokens"] != other["max_tokens"]
        },
    }


def _data(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a run's data: contents and counts of rows, not paths."""
    kept = ("content_hash", "rows", "bad_rows")
    return {
        stage: {
            name: {key: source[key] for key in kept if key in source}
            for name, source in sources.items()
            if isinstance(source, dict)
        }
        for stage, sources in run["data"].items()
        if isinstance(sources, dict)
    }


def _differing(a: Any, b: Any) -> dict[str, list[Any]]:
    flat_a, flat_b = flatten(a), flatten(b)
    names = [*flat_a, *(name for name in flat_b if name not in flat_a)]
    return {name: [flat_a.get(name), flat_b.get(name)] for name in names if flat_a.get(name) != flat_b.get(name)}


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries and lists by dotted names."""
    if not isinstance(tree, dict | list):
        return {prefix: tree} if prefix else {}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    leaves: dict[str, Any] = {}
    for name, item in items:
        leaves.update(flatten(item, f"{prefix}.{name}" if prefix else str(name)))
    return leaves
