"""The tables of `gemma4vec runs`."""

from typing import Any

from rich.console import Group
from rich.text import Text

from gemma4vec.cli.output import table

SHOWN_SUITES = 3


def run_table(runs: list[dict[str, Any]]) -> Any:
    """The list of runs with their nDCG@10."""
    if not runs:
        return "no runs yet; start one with: gemma4vec quickstart"
    rows = [
        [
            run["run_id"],
            str(run["created"] or "")[:16].replace("T", " "),
            run["recipe_id"],
            "deleted" if run["deleted"] else run["status"],
            _scores(run["scores"]),
            run["decision"],
        ]
        for run in runs
    ]
    looks = [
        _further_look(f"{run['run_id']}, {suite}", why) for run in runs for suite, why in run["further_looks"].items()
    ]
    return Group(table(["run", "when (UTC)", "recipe", "status", "nDCG@10", "decision"], rows), *looks)


def run_page(run: dict[str, Any]) -> Any:
    """Everything about one run."""
    git = (run["code"] or {}).get("git") or {}
    commit = f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else None
    machine = run["machine"] or {}
    decisions: list[list[object]] = [
        ["decision", f"{made['decision']}: {made['words']}".rstrip(": ")] for made in run["decisions"]
    ]
    pairs: list[list[object]] = [
        ["when (UTC)", str(run["created"] or "")[:19].replace("T", " ")],
        ["status", f"{run['status']}{', folder deleted' if run['deleted'] else ''}"],
        ["recipe", run["recipe_id"]],
        ["seed", run["seed"]],
        ["hypothesis", run["hypothesis"] or None],
        ["builds on", ", ".join(run["parents"]) or None],
        *(["data " + stage, _sources(sources)] for stage, sources in run["data"].items()),
        ["code", commit or ((run["code"] or {}).get("versions") or {}).get("gemma4vec")],
        ["machine", f"{machine.get('cpu')}, {machine.get('cores')} cores" if machine else None],
        ["cost", _cost(run["cost"])],
        *decisions,
        ["folder", run["path"]],
    ]
    parts: list[Any] = [table([run["run_id"], ""], pairs)]
    by_metrics: dict[tuple[str, ...], list[list[object]]] = {}  # kinds of tasks share no column
    for one in run["evaluations"]:
        cut = f" (cut at {one['cut_at']:,} tokens)" if one["cut_at"] else ""
        row = [f"{one['suite']}{cut}", one["model"], *one["mean"].values()]
        by_metrics.setdefault(tuple(one["mean"]), []).append(row)
    parts += [table(["suite", "model", *metrics], rows) for metrics, rows in by_metrics.items()]
    further = {(one["suite"], one["model"]): one["look_again"] for one in run["evaluations"] if one["look_again"]}
    parts += [_further_look(f"{suite}, {model}", why) for (suite, model), why in further.items()]
    return Group(*parts)


def difference_page(found: dict[str, Any]) -> Any:
    """The differences between two runs."""
    parts: list[Any] = [Text(f"A: {found['a']}\nB: {found['b']}")]
    for kind in ("recipe", "data", "code", "machine"):
        rows = [[name, _plain(a), _plain(b)] for name, (a, b) in found[kind].items()]
        parts.append(table([kind, "A", "B"], rows) if rows else Text(f"{kind}: the same"))
    scores = [
        [suite, found["metrics"][suite], a, b, _less(a, b, found["limits"].get(suite))]
        for suite, (a, b) in found["scores"].items()
    ]
    if scores:
        parts += [
            table(["suite", "metric", "A", "B", "A - B"], scores),
            *(
                _further_look(f"{suite}, {side}", why)
                for suite, reasons in found["further_looks"].items()
                for side, why in zip("AB", reasons, strict=True)
                if why
            ),
            Text(f"to test the difference: gemma4vec compare {found['a']} {found['b']}"),
        ]
    else:
        parts.append(Text("scores: no common suite"))
    return Group(*parts)


def _further_look(where: str, why: str) -> Text:
    return Text(f"{where}: a further look at a final suite, since: {' '.join(why.split())}")


def _less(a: float | None, b: float | None, limits: list[int | None] | None) -> str | None:
    """A - B, or why it is not defined."""
    if limits is not None:
        return f"cut at {limits[0]} and {limits[1]} tokens"
    return f"{a - b:+.4f}" if a is not None and b is not None else None


def look_table(rows: list[dict[str, Any]]) -> Any:
    """Looks at each suite."""
    if not rows:
        return "no suite has been looked at yet"
    columns = ["suite", "role", "contents", "looks", "models", "since freeze", "compared", "last", "locked"]
    cells = [
        [
            row["suite"],
            row["role"],
            row["suite_fingerprint"][:8],
            row["looks"],
            row["models"],
            f"{row['looks_since_freeze']} of {row['models_since_freeze']} models",
            row["comparisons"],
            row["last"][:16].replace("T", " "),
            row["locked"],
        ]
        for row in rows
    ]
    return table(columns, cells)


def _scores(scores: dict[str, float | None]) -> str | None:
    shown = [
        f"{suite} {'not a number' if score is None else f'{score:.3f}'}"
        for suite, score in list(scores.items())[:SHOWN_SUITES]
    ]
    more = len(scores) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])]) or None


def _sources(sources: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{name}: {source.get('rows', 0):,} rows ({str(source.get('content_hash'))[:12]})"
        for name, source in sources.items()
    )


def _cost(cost: dict[str, Any]) -> str | None:
    words = [f"{cost['seconds']:,.0f} s"] if "seconds" in cost else []
    words += [f"{cost['tokens']:,} tokens"] if "tokens" in cost else []
    words += [f"{cost['peak_memory_bytes'] / 2**30:.1f} GiB peak memory"] if cost.get("peak_memory_bytes") else []
    return ", ".join(words) or None


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)
