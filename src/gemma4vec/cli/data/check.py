"""`gemma4vec data check TRAIN... --against SUITE`: test texts in training data, and faulty rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gemma4vec.data.quality.check import SourceReport
    from gemma4vec.data.suites.texts import SuiteTexts

KINDS = ("exact", "contained", "near")
EXAMPLES, SHOWN = 6, 160


def check_command(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="TRAIN...", help="Training data: JSONL files, a recipe (.yaml), a run folder, pycode or debian."
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="SUITE",
            help="Suite, as for eval --suite, or a folder of suites; repeatable.",
            show_default=False,
        ),
    ] = None,
    near: Annotated[
        float, typer.Option("--near", help="Smallest Jaccard similarity of near-duplicates, 0.5 to 1.")
    ] = 0.7,
    language: Annotated[
        list[str] | None,
        typer.Option(
            "--language",
            help="Expected language (en, de); rows in other languages are faults. Repeatable.",
            show_default=False,
        ),
    ] = None,
    drop: Annotated[
        Path | None,
        typer.Option(
            "--drop", metavar="FILE", help="Write a list of the rows to leave out, as JSONL.", show_default=False
        ),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            "--clean",
            metavar="DIR",
            help="Write each source without those rows to DIR/<source>.jsonl.gz.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON on stdout.")] = False,
) -> None:
    """Find test queries and documents in training data, and faulty rows.

    The findings are recorded below HOME/checks; scores of runs on this data then carry a contamination mark.
    """
    import time

    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import resolve_sources, resolve_suites
    from gemma4vec.data.quality.check import check_sources, make_records, rules
    from gemma4vec.data.quality.cleaning import write_clean, write_drops
    from gemma4vec.data.quality.contamination_record import write_record

    started = time.perf_counter()
    sources, suites = resolve_sources(train), resolve_suites(against or [])
    reports = check_sources(sources, suites, near=near, languages=language or ())
    made = make_records(reports, suites, near)
    for stamp in made:
        write_record(stamp)
    found = {
        "sources": [_source(report, suites) for report in reports],
        "suites": [
            {"name": suite.name, "queries": len(suite.query_ids), "documents": len(suite.documents)} for suite in suites
        ],
        "rules": rules(near),
        "seconds": time.perf_counter() - started,
    }
    if drop is not None:
        found["drop"] = {"file": str(drop), "rows": write_drops(drop, reports)}
    if clean is not None:
        found["clean"] = {"folder": str(clean), "rows": write_clean(clean, reports)}
    emit(as_json, found, _render)


def _source(report: "SourceReport", suites: "list[SuiteTexts]") -> dict[str, Any]:
    """One source's report as JSON values."""
    return {
        "name": report.name,
        "rows": len(report.rows),
        "content_hash": report.content_hash,
        "bad_rows": report.bad_rows,
        "texts": report.counts,
        "flaws": report.flaws,
        "flaw_examples": report.flaw_examples,
        "cut": report.cut,
        "rows_at_fault": len(report.faults),
        "suites": [
            {
                "name": suite.name,
                "found": found.table(),
                "documents": len(found.ids("document")),
                "queries": len(found.ids("query")),
                "touched_queries": touched,
                "examples": found.examples,
            }
            for suite, found, touched in zip(suites, report.found, report.touched, strict=True)
        ],
    }


def _render(found: dict[str, Any]) -> Any:
    """The tables and example lines."""
    from rich.console import Group
    from rich.text import Text

    lines = [*_overlap_lines(found), *_examples(found)]
    last = [f"{found['seconds']:.1f} s"]
    if "drop" in found:
        last.append(f"rows to leave out: {found['drop']['rows']:,}, listed in {found['drop']['file']}")
    if "clean" in found:
        sizes = ", ".join(f"{name} {rows:,} rows" for name, rows in found["clean"]["rows"].items())
        last.append(f"cleaned sources: {found['clean']['folder']} ({sizes})")
    parts: list[Any] = [_overlap_table(found)] if found["suites"] else []
    return Group(*parts, *map(Text, lines), _flaw_table(found), *map(Text, last))


def _overlap_table(found: dict[str, Any]) -> Any:
    from gemma4vec.cli.output import table

    sizes = {suite["name"]: suite for suite in found["suites"]}
    several = len(found["sources"]) > 1
    rows: list[list[object]] = []
    for source in found["sources"]:
        for suite in source["suites"]:
            for one in suite["found"]:
                size = sizes[suite["name"]]["queries" if one["side"] == "query" else "documents"]
                side = "queries" if one["side"] == "query" else "documents"
                where = f"{source['name']} {one['field']}" if several else one["field"]
                counts = [one["items"][kind] for kind in KINDS]
                rows.append([suite["name"], where, f"{size:,} {side}", *counts, sum(one["rows"].values())])
    heading = ["suite", "training text", "found in", *KINDS, "rows"]
    return table(heading, sorted(rows, key=lambda row: str(row[0])), title="test texts found in training data")


def _overlap_lines(found: dict[str, Any]) -> list[str]:
    """One line for each suite on what the overlap means for its scores."""
    lines = []
    for suite in found["suites"]:
        touched = {
            key
            for source in found["sources"]
            for one in source["suites"]
            if one["name"] == suite["name"]
            for key in one["touched_queries"]
        }
        documents = sum(
            one["documents"] for source in found["sources"] for one in source["suites"] if one["name"] == suite["name"]
        )
        if touched:
            share = len(touched) / suite["queries"]
            lines.append(
                f"{suite['name']}: {len(touched):,} of {suite['queries']:,} queries are touched ({share:.1%}); "
                "scores of runs on this data carry a mark"
            )
        elif documents:
            lines.append(f"{suite['name']}: no query is touched, but {documents:,} documents were found")
        else:
            lines.append(f"{suite['name']}: nothing found")
    return lines


def _examples(found: dict[str, Any]) -> list[str]:
    """One example of each kind of overlap, strongest kinds first."""
    picked: dict[tuple[str, str, str], dict[str, Any]] = {}
    for source in found["sources"]:
        for suite in source["suites"]:
            for one in suite["examples"]:
                picked.setdefault((one["kind"], one["field"], one["side"]), {**one, "suite": suite["name"]})
    chosen = sorted(picked.values(), key=lambda one: KINDS.index(one["kind"]))[:EXAMPLES]
    return [
        f"  {one['kind']}: {one['source']} row {one['row']} {one['field']} "
        f"{_short(one['training_text'])!r}\n"
        f"    in {one['suite']} {one['side']} {one['id']} {_short(one['suite_text'])!r}"
        for one in chosen
    ]


def _flaw_table(found: dict[str, Any]) -> Any:
    from gemma4vec.cli.output import table
    from gemma4vec.data.quality.row_faults import KINDS as FLAWS

    rows: list[list[object]] = []
    for source in found["sources"]:
        named = [(FLAWS[kind], count) for kind, count in sorted(source["flaws"].items())]
        named += [("unreadable", source["bad_rows"])] if source["bad_rows"] else []
        if source["cut"]:
            cut = source["cut"]
            named.append((f"positives cut at {cut['characters']:,} characters", cut["texts"]))
        rows += [[source["name"], words, count] for words, count in named]
        if not named:
            rows.append([source["name"], "no fault found", source["rows"]])
    return table(["source", "fault", "count"], rows)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN else flat[: SHOWN - 3] + "..."
