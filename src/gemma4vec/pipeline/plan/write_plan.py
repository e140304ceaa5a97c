"""Files with a plan's results: results.json (everything), results.md and results.html (for reading)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.files import atomic_write, write_json
from gemma4vec.pipeline.matrix.write import METRIC, Table, markdown_table
from gemma4vec.report.plan_page import write_plan_page
from gemma4vec.statistics.verdict import format_p


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Write each file atomically.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    write_json(folder / "results.json", results)
    with atomic_write(folder / "results.md") as stream:
        stream.write(as_markdown(results))
    write_plan_page(results, folder / "results.html")


def as_markdown(results: Mapping[str, Any]) -> str:
    """All tables and notes as Markdown."""
    machine, budget = results["environment"]["machine"], results["budget"]
    of_budget = "" if budget is None else f" of {budget:g}"
    metric = METRIC.get(results["metric"], results["metric"])
    parts = [
        f"# {results['plan']}",
        results["hypothesis"],
        f"{machine['cpu']}, {machine['cores']} cores; {results['minutes']:.0f}{of_budget} minutes. {metric}.",
        "## Steps",
        markdown_table(*steps_table(results)),
        "## What each step brought",
        markdown_table(*difference_table(results)),
        *(["## Vector lengths and schemes", markdown_table(*lengths_table(results))] if results["lengths"] else []),
        "\n".join(f"- {note}" for note in [*results["notes"], *results["choices"], *list_marks(results)]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def list_marks(results: Mapping[str, Any]) -> list[str]:
    """What scores must not be shown without, of all models."""
    return [mark for row in [*results["steps"], *results["references"]] for mark in row["marks"]]


def steps_table(results: Mapping[str, Any]) -> Table:
    """The lineage, with each model's scores."""
    has_final = any(suite["role"] == "final" for suite in results["suites"])
    columns = ["step", "from", "what", "minutes", "dev", *(["final"] if has_final else [])]
    rows = [
        [row["key"], "-", "reference", "-", score(row["dev"]), *([score(row["final"])] if has_final else [])]
        for row in results["references"]
    ]
    for row in results["steps"]:
        dropped = "" if row["kept"] in (None, True) else " (not kept)"
        dev = score(row["dev"]) if row["status"] == "done" else row["status"]
        parents = ", ".join(row["parents"]) or "the base"
        rows.append(
            [row["key"] + dropped, parents, row["what"], f"{row['minutes']:.1f}", dev]
            + ([score(row["final"])] if has_final else [])
        )
    return columns, rows


def difference_table(results: Mapping[str, Any]) -> Table:
    """Paired differences of every model to what it was made from."""
    columns = ["difference", "suites", "value", "95% interval", "p", "p (Holm)", "verdict", "why"]
    rows = [
        [
            one["name"],
            one["role"],
            f"{one['mean']:+.4f}",
            f"{one['low']:+.4f} to {one['high']:+.4f}",
            format_p(one["p"]),
            format_p(one["p_holm"]),
            one["verdict"],
            one["reason"],
        ]
        for one in results["differences"]
    ]
    return columns, rows


def list_lengths(results: Mapping[str, Any]) -> list[int]:
    """All vector lengths of the last table, the longest first."""
    return sorted({int(length) for row in results["lengths"] for length in row["lengths"]}, reverse=True)


def lengths_table(results: Mapping[str, Any]) -> Table:
    """Rows: models; columns: vector lengths."""
    lengths = list_lengths(results)
    rows = [
        [row["key"], row["what"], *(score(row["lengths"].get(str(length))) for length in lengths)]
        for row in results["lengths"]
    ]
    return ["model", "scheme", *map(str, lengths)], rows


def score(part: Mapping[str, Any] | None) -> str:
    """A mean with its interval."""
    return "-" if not part else f"{part['mean']:.4f} [{part['low']:.3f}, {part['high']:.3f}]"
