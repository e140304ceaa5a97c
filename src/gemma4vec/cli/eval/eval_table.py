"""The tables and warnings of `gemma4vec eval`, for every kind of suite."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemma4vec.evaluation.results.result import Result

NAMES = {
    "ndcg@10": "nDCG@10",
    "recall@100": "R@100",
    "mrr@10": "MRR@10",
    "map": "MAP",
    "mrr": "MRR",
    "acc@1": "Acc@1",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "loss": "loss",
    "ap": "AP",
    "v_measure": "V-measure",
}
MOST_COLUMNS = 4  # metrics in the table, the main one first; --json has all
FEW_TIES = 0.05


def result_row(result: "Result", folder: Path, seed: int) -> dict[str, Any]:
    """One result as JSON values."""
    from gemma4vec.evaluation.results.marks import quality_of, suite_marks
    from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence, touched_queries

    main = result.metric
    interval = result.interval(main, seed=seed)
    has_width = interval.high > interval.low
    quality = quality_of(result)
    suite, mark = result.settings["suite"], result.settings.get("contamination") or {}
    row: dict[str, Any] = {
        "model": result.model,
        "suite": result.suite,
        "kind": result.kind,
        "role": suite.get("role"),
        "metric": main,
        **{key: suite[key] for key in ("queries", "documents", "pairs", "rows") if key in suite},
        "items": len(result.keys),
        **result.mean,
        f"{main}_low": interval.low if has_width else None,
        f"{main}_high": interval.high if has_width else None,
        **{key: quality[key] for key in ("tie_rate@10", "judged@10", "tie_rate", "degenerate") if key in quality},
        "touched_queries": len(touched_queries(result)),
        "contamination": mark_sentence(result),
        "unknown_training_data": [*(mark.get("unknown") or []), *(mark.get("pretrained") or [])],
        "cautions": suite_marks(result),
        "seconds": result.settings["seconds"]["total"],
        "look": result.settings.get("look"),
        "ledger": result.settings.get("ledger"),
        "look_again": result.settings.get("look_again"),
        "overlaps": result.settings.get("overlaps") or [],
        "folder": str(folder),
    }
    if len(result.per_query) > 1:
        row["tasks"] = result.tasks
    return row


def result_tables(rows: list[dict[str, Any]]) -> Any:
    """One table for each kind of suite and main metric, so that a column never mixes metrics."""
    from rich.console import Group
    from rich.text import Text

    by_kind: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault((row["kind"], row["metric"]), []).append(row)
    tables = [_table(found, kind, main) for (kind, main), found in by_kind.items()]
    places = [f"{row['suite']}: {row['folder']} ({row['seconds']:.1f} s)" for row in rows]
    return Group(*tables, *(Text(line) for line in [*_warnings(rows), *places]))


def _table(rows: list[dict[str, Any]], kind: str, main: str) -> Any:
    from gemma4vec.cli.output import table

    figures = [name for name in NAMES if name in rows[0] and name != main][: MOST_COLUMNS - 1]
    retrieval = "documents" in rows[0]
    columns = ["suite", *(["queries", "docs"] if retrieval else ["items"]), NAMES.get(main, main), "95% interval"]
    cells = []
    for row in rows:
        sizes = [row["queries"], row["documents"]] if retrieval else [row["items"]]
        name = f"{row['suite']} *" if row["touched_queries"] else row["suite"]
        cells.append([name, *sizes, row[main], _interval(row, main), *(row.get(name) for name in figures)])
        of_tasks = row.get("tasks", {})
        for task, scores in of_tasks.items():
            blank = [""] * len(sizes)
            cells.append([f"  {task}", *blank, scores[main], "", *(scores.get(name) for name in figures)])
    return table([*columns, *(NAMES[name] for name in figures)], cells, title=f"{rows[0]['model']}: {kind}")


def _interval(row: dict[str, Any], main: str) -> str:
    if row[f"{main}_low"] is None:
        return "none"
    return f"{row[f'{main}_low']:.3f}-{row[f'{main}_high']:.3f}"


def _warnings(rows: list[dict[str, Any]]) -> list[str]:
    """Warnings about the scores."""
    notes = []
    for row in rows:
        if row.get("degenerate"):
            notes.append(f"warning: {row['suite']}: most scores are equal; the model does not separate the documents")
        elif row[row["metric"]] == 0.0 and row["kind"] in ("retrieval", "compact-retrieval"):
            notes.append(f"warning: {row['suite']}: every query scores 0; check that the qrels match the corpus")
        if row["look_again"]:
            notes.append(f"{row['suite']}: a further look at a final suite, since: {row['look_again']}")
        notes += [f"warning: {row['suite']}: {caution}" for caution in row["cautions"]]
        if row["contamination"]:
            notes.append(f"{'* ' if row['touched_queries'] else ''}{row['suite']}: {row['contamination']}")
        if not (row.get("ledger") or {}).get("id"):
            notes.append(f"warning: {row['suite']}: no ledger recorded this look")
        for one in row.get("overlaps") or []:
            role = f"{one['role']} suite" if one["role"] else "suite"
            notes.append(f"{one['of']}: {one['shared']:.0%} of the queries of the {role} {one['suite']} are in it")
        if row["items"] == 1:
            notes.append(f"warning: {row['suite']}: one query; no interval and no comparison is possible")
        ties = row.get("tie_rate@10") or 0.0
        if ties > FEW_TIES and not row["degenerate"] and row["model"] != "bm25":
            notes.append(
                f"warning: {row['suite']}: ties decide the top 10 for {ties:.0%} of the queries; try --dtype fp32"
            )
    return notes
