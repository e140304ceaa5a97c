"""Is what we test on in what we train on? From Python: `check_contamination`."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gemma4vec.api.display import Showing, Shown, progress_shown
from gemma4vec.api.rows import Rows, sources_of
from gemma4vec.data.loading.resolve_names import resolve_suites
from gemma4vec.data.quality.check import SourceReport, check_sources, make_records, rules
from gemma4vec.data.quality.cleaning import write_clean, write_drops
from gemma4vec.data.quality.contamination_record import write_record
from gemma4vec.data.quality.row_faults import KINDS as FLAWS
from gemma4vec.data.suites.texts import SuiteTexts
from gemma4vec.files import check_writable, refuse_overwriting
from gemma4vec.recipe.schema import Source

KINDS = ("exact", "contained", "near")
EXAMPLES, SHOWN = 6, 160
NEAR = 0.7


class Contamination(Showing):
    """What training data and test suites have in common; `check_contamination` returns one."""

    def __init__(self, found: dict[str, Any]):
        self._found = found

    @property
    def is_clean(self) -> bool:
        """Whether no test text was found in the training data."""
        return not any(one["found"] for source in self._found["sources"] for one in source["suites"])

    @property
    def touched_queries(self) -> dict[str, list[str]]:
        """Suite -> ids of its queries that the training data touches: theirs or their right documents' texts."""
        return {
            suite["name"]: sorted(
                {
                    str(key)
                    for source in self._found["sources"]
                    for one in source["suites"]
                    if one["name"] == suite["name"]
                    for key in one["touched_queries"]
                }
            )
            for suite in self._found["suites"]
        }

    @property
    def flaws(self) -> dict[str, dict[str, int]]:
        """Source -> kind of flaw -> number of rows that are faulty by themselves."""
        return {source["name"]: dict(source["flaws"]) for source in self._found["sources"]}

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; the same as `gemma4vec data check --json` prints."""
        return dict(self._found)

    def _shown(self) -> Shown:
        columns, rows = overlap_rows(self._found)
        flaws = [f"{name}: {words}: {count:,}" for name, words, count in flaw_rows(self._found) if words in _FAULTS]
        lines = [*overlap_lines(self._found), *flaws, *example_lines(self._found)]
        return Shown("Test texts in the training data", columns, rows, lines)


_FAULTS = {*FLAWS.values(), "unreadable"}


def check_contamination(
    rows: Rows,
    suites: str | Path | Sequence[str | Path] = (),
    *,
    near: float = NEAR,
    languages: Sequence[str] = (),
    drop: str | Path | None = None,
    clean: str | Path | None = None,
    progress: bool = True,
) -> Contamination:
    """Find test queries and documents in training data, and faulty rows. The same as `gemma4vec data check`.

    The findings are recorded below `$GEMMA4VEC_HOME/checks`. Scores of runs on this data then
    carry a contamination mark.

    Args:
        rows: files of rows, recipes, runs, or rows in memory: `[{"query": ..., "pos": [...]}, ...]`.
        suites: what `evaluate` takes, or folders with several suites in them; none checks the rows alone.
        near: least Jaccard similarity of a near-duplicate, 0.5 to 1.
        languages: codes of right languages ("en", "de"); rows clearly in others are faults.
        drop: write what to leave out to this file, as JSON lines that a recipe's source names as `drop`.
        clean: write each source without it into this folder, as `<source>.jsonl.gz`.
        progress: show log lines and the progress of long work on standard error.

    Returns:
        What was found: `is_clean`, `touched_queries`, `flaws`.

    Raises:
        InputError: rows or suites that cannot be read, or `near` out of its range.
        WorkError: a file cannot be written.

    Example:
        >>> import gemma4vec as g4v
        >>> found = g4v.check_contamination([{"query": "how to open a file", "pos": ["def f(): ..."]}], progress=False)
        >>> found.is_clean
        True
    """
    named = [suites] if isinstance(suites, str | Path) else list(suites)
    with progress_shown(progress), sources_of(rows) as sources:
        found = check(
            sources,
            [str(one) for one in named],
            near=near,
            languages=languages,
            drop=None if drop is None else Path(drop),
            clean=None if clean is None else Path(clean),
        )
    return Contamination(found)


def check(
    sources: Sequence[Source],
    suites: Sequence[str],
    *,
    near: float,
    languages: Sequence[str],
    drop: Path | None,
    clean: Path | None,
) -> dict[str, Any]:
    """Check, store what was found, and return it as JSON values.

    Raises:
        InputError: `drop`, or a file below `clean`, is one of the sources.
        WorkError: a file cannot be written, which is found before the check.
    """
    started = time.perf_counter()
    cleaned = [] if clean is None else [clean / f"{source.name}.jsonl.gz" for source in sources]
    outputs = cleaned if drop is None else [drop, *cleaned]
    own = [place for source in sources for place in (source.path, source.drop, source.repeat)]
    refuse_overwriting(outputs, [*suites, *own])
    for out in outputs:
        check_writable(out.parent)
    texts = resolve_suites(suites)
    reports = check_sources(sources, texts, near=near, languages=languages)
    for stamp in make_records(reports, texts, near):
        write_record(stamp)
    found: dict[str, Any] = {
        "sources": [_source(report, texts) for report in reports],
        "suites": [
            {"name": suite.name, "queries": len(suite.query_ids), "documents": len(suite.documents)} for suite in texts
        ],
        "rules": rules(near),
        "seconds": time.perf_counter() - started,
    }
    if drop is not None:
        found["drop"] = {"file": str(drop), "rows": write_drops(drop, reports)}
    if clean is not None:
        found["clean"] = {"folder": str(clean), "rows": write_clean(clean, reports)}
    return found


def overlap_rows(found: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Heading and rows of the table of what was found in which field."""
    sizes = {suite["name"]: suite for suite in found["suites"]}
    several = len(found["sources"]) > 1
    rows: list[list[object]] = []
    for source in found["sources"]:
        for suite in source["suites"]:
            for one in suite["found"]:
                side = "queries" if one["side"] == "query" else "documents"
                where = f"{source['name']} {one['field']}" if several else one["field"]
                counts = [one["items"][kind] for kind in KINDS]
                size = sizes[suite["name"]][side]
                rows.append([suite["name"], where, f"{size:,} {side}", *counts, sum(one["rows"].values())])
    heading = ["suite", "training text", "found in", *KINDS, "rows"]
    return heading, sorted(rows, key=lambda row: str(row[0]))


def overlap_lines(found: dict[str, Any]) -> list[str]:
    """What the overlap means for each suite's scores."""
    lines = []
    for suite in found["suites"]:
        inside = [one for source in found["sources"] for one in source["suites"] if one["name"] == suite["name"]]
        touched = {key for one in inside for key in one["touched_queries"]}
        documents = sum(one["documents"] for one in inside)
        if touched:
            share = len(touched) / suite["queries"]
            lines.append(
                f"{suite['name']}: {len(touched):,} of {suite['queries']:,} queries are touched ({share:.1%}); "
                "scores of runs on this data carry a mark"
            )
        elif documents:
            lines.append(f"{suite['name']}: no query is touched, though {documents:,} of its texts were found")
        else:
            lines.append(f"{suite['name']}: nothing found")
    return lines


def example_lines(found: dict[str, Any]) -> Iterator[str]:
    """One example of each kind of overlap, the strongest kinds first."""
    picked: dict[tuple[str, str, str], dict[str, Any]] = {}
    for source in found["sources"]:
        for suite in source["suites"]:
            for one in suite["examples"]:
                picked.setdefault((one["kind"], one["field"], one["side"]), {**one, "suite": suite["name"]})
    for one in sorted(picked.values(), key=lambda one: KINDS.index(one["kind"]))[:EXAMPLES]:
        yield (
            f"  {one['kind']}: {one['source']} row {one['row']} {one['field']} {_short(one['training_text'])!r}\n"
            f"    in {one['suite']} {one['side']} {one['id']} {_short(one['suite_text'])!r}"
        )


def flaw_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(source, flaw, count) of rows that are faulty by themselves; a source without one has a row too."""
    for source in found["sources"]:
        named = [(FLAWS[kind], count) for kind, count in sorted(source["flaws"].items())]
        named += [("unreadable", source["bad_rows"])] if source["bad_rows"] else []
        if source["cut"]:
            cut = source["cut"]
            named.append((f"positives cut at {cut['characters']:,} characters", cut["texts"]))
        yield from ((source["name"], words, count) for words, count in named)
        if not named:
            yield source["name"], "no fault found", source["rows"]


def _source(report: SourceReport, suites: list[SuiteTexts]) -> dict[str, Any]:
    """A source's report as JSON values."""
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


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN else flat[: SHOWN - 3] + "..."
