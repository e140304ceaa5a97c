"""Files with a matrix's results: results.json (everything), results.csv (one line a variant), results.md and
results.html (for reading)."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.files import atomic_write, write_json
from gemma4vec.report.matrix_page import write_matrix_page
from gemma4vec.statistics.verdict import format_p


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Write each file atomically.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    write_json(folder / "results.json", results)
    for name, text in (("results.csv", as_csv(results)), ("results.md", as_markdown(results))):
        with atomic_write(folder / name) as stream:
            stream.write(text)
    write_matrix_page(results, folder / "results.html")


def as_csv(results: Mapping[str, Any]) -> str:
    """One line a variant: all figures in full precision."""
    finals = _final_suites(results)
    lines = [_csv_row(row, finals) for row in [*results["rows"], *results["references"]]]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_row(row: Mapping[str, Any], finals: Sequence[str]) -> dict[str, Any]:
    difference, spread = row["difference"] or {}, row["spread"] or {}
    line: dict[str, Any] = {key: row[key] for key in ("variant", "recipe", "base", "status", "learning_rate")}
    line["seeds"] = " ".join(map(str, row["seeds"]))
    for name, part in [("dev", row["dev"]), *((suite, row["final"].get(suite)) for suite in finals)]:
        line |= {f"{name}{end}": (part or {}).get(key) for end, key in _ENDS}
    line |= {f"final_mean{end}": (row["final_mean"] or {}).get(key) for end, key in _ENDS}
    line |= {f"seed_{key}": spread.get(key) for key in ("min", "max", "sd")}
    line |= {f"difference{end}": difference.get(key) for end, key in _ENDS}
    line |= {key: difference.get(key) for key in ("p", "p_holm", "verdict")}
    return line | {key: row.get(key) for key in COST}


_ENDS = (("", "mean"), ("_low", "low"), ("_high", "high"))
COST = ("rows", "tokens", "flops", "minutes", "peak_memory_bytes", "trainable", "total")


def as_markdown(results: Mapping[str, Any]) -> str:
    """All tables and notes as Markdown."""
    environment = results["environment"]
    machine = environment["machine"]
    parts = [
        f"# {results['matrix']}",
        results["hypothesis"],
        f"{machine['cpu']}, {machine['cores']} cores; {results['minutes']:.0f} minutes in total. "
        f"{METRIC.get(results['metric'], results['metric'])}; control: {results['control']}.",
        markdown_table(*suites_table(results)),
        "## Scores",
        markdown_table(*scores_table(results)),
        "## Against the control",
        markdown_table(*difference_table(results)),
        "## Cost",
        markdown_table(*cost_table(results)),
        f"## Learning rates (dev score{_search(results)})",
        markdown_table(*grid_table(results)),
        "\n".join(f"- {note}" for note in results["notes"]),
    ]
    for title, key, name in (
        ("Failed", "failed", "cell"),
        ("Stopped by the stop rule", "stopped", "cell"),
        ("Not run", "not_run", "cell"),
    ):
        if results[key]:
            parts += [f"## {title}", "\n".join(f"- {one[name]}: {_plain(one['reason'])}" for one in results[key])]
    return "\n\n".join(part for part in parts if part) + "\n"


METRIC = {"ndcg@10": "nDCG@10", "recall@100": "Recall@100", "mrr@10": "MRR@10", "map": "MAP"}
Table = tuple[list[str], list[list[str]]]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def suites_table(results: Mapping[str, Any]) -> Table:
    """The suites and their sizes."""
    rows = [[s["suite"], s["role"], f"{s['queries']:,}", f"{s['documents']:,}"] for s in results["suites"]]
    return ["suite", "role", "queries", "documents"], rows


def scores_table(results: Mapping[str, Any]) -> Table:
    """Dev and final scores with intervals, and the spread over seeds."""
    finals = _final_suites(results)
    columns = ["recipe", "rate", "seeds", "dev", *finals, "mean of final", "seeds min to max (sd)"]
    rows = [
        [
            row["variant"],
            "-" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
            str(len(row["seeds"])) if row["seeds"] else row["status"],
            _interval(row["dev"]),
            *(_interval(row["final"].get(suite)) for suite in finals),
            _interval(row["final_mean"]),
            _spread(row["spread"]),
        ]
        for row in results["rows"]
    ]
    for row in results["references"]:
        parts = [row["dev"], *(row["final"].get(suite) for suite in finals), row["final_mean"]]
        rows.append([row["variant"], "-", "reference", *(_interval(part) for part in parts), "-"])
    return columns, rows


def difference_table(results: Mapping[str, Any]) -> Table:
    """Paired differences to the control over all final suites."""
    columns = ["recipe", "difference", "95% interval", "p", "p (Holm)", "seeds", "verdict", "why"]
    rows = []
    for row in results["rows"]:
        one = row["difference"]
        if one is None:
            word = "control" if row["control"] else row["status"] if row["status"] != "done" else "no control"
            rows.append([row["variant"], "-", "-", "-", "-", str(len(row["seeds"])), word, ""])
            continue
        span = f"{one['low']:+.4f} to {one['high']:+.4f}"
        p_values = [format_p(one["p"]), format_p(one["p_holm"])]
        figures = [f"{one['mean']:+.4f}", span, *p_values, str(len(one["seeds"]))]
        rows.append([row["variant"], *figures, one["verdict"], one["reason"]])
    return columns, rows


def cost_table(results: Mapping[str, Any]) -> Table:
    """The cost of a training, mean over seeds."""
    columns = ["recipe", "rows", "tokens", "FLOPs", "minutes", "peak memory", "trainable", "total"]
    rows = [
        [
            row["variant"],
            f"{row['rows']:,}",
            f"{row['tokens']:,}",
            f"{row['flops']:.2e}",
            f"{row['minutes']:.1f}",
            f"{row['peak_memory_bytes'] / 2**30:.1f} GiB",
            f"{row['trainable'] / 1e6:.2f} M",
            f"{row['total'] / 1e6:.1f} M",
        ]
        for row in results["rows"]
        if row["seeds"]
    ]
    return columns, rows


def grid_table(results: Mapping[str, Any]) -> Table:
    """Dev score of each learning rate."""
    rates = list(dict.fromkeys(rate for row in results["grid"] for rate in row["scores"]))
    rows = [
        [row["variant"], *(_grid_cell(row["scores"].get(rate), row["status"].get(rate)) for rate in rates)]
        for row in results["grid"]
    ]
    return ["recipe", *rates], rows


def _search(results: Mapping[str, Any]) -> str:
    rows = results["search_rows"]
    return "" if rows is None else f" after {rows:,} rows"


def _grid_cell(score: float | None, status: str | None) -> str:
    if score is None:
        return status or "-"
    return f"{score:.4f}" + (" stopped" if status == "stopped" else "")


def _final_suites(results: Mapping[str, Any]) -> list[str]:
    return [suite["suite"] for suite in results["suites"] if suite["role"] == "final"]


def _interval(part: Mapping[str, Any] | None) -> str:
    if not part:
        return "-"
    if part.get("low") is None:
        return f"{part['mean']:.4f}"
    return f"{part['mean']:.4f} [{part['low']:.3f}, {part['high']:.3f}]"


def _spread(part: Mapping[str, Any] | None) -> str:
    if not part or part["sd"] is None:
        return "-"
    return f"{part['min']:.4f} to {part['max']:.4f} ({part['sd']:.4f})"


def _plain(text: str) -> str:
    """Escape text for a table cell."""
    return text.replace("|", "\\|")
