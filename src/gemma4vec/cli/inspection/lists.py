"""`gemma4vec inspect flips | similar | explain`: models beside each other, and one query."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.inspection.opened import AsJson, Dev, Dtype, Mirror, TaskName, open_dev_suite, open_subjects

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger(__name__)
SHOWN = 10
CHARACTERS = 60


def flips_command(
    a: Annotated[str, typer.Argument(help="The model before: bm25, a run, a folder, a hub id or bundled:NAME.")],
    b: Annotated[str, typer.Argument(help="The model after.")],
    suite: Dev,
    task: TaskName = None,
    seed_of_a: Annotated[
        list[str] | None,
        typer.Option("--seed-of-a", help="Another training of A's recipe, for its noise; repeatable.", metavar="RUN"),
    ] = None,
    seed_of_b: Annotated[
        list[str] | None, typer.Option("--seed-of-b", help="Another training of B's recipe; repeatable.", metavar="RUN")
    ] = None,
    most: Annotated[int, typer.Option("--most", help="Queries in the list.", min=1, max=10_000)] = 100,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; default: HOME/flips/A-B/DEV.json.", metavar="FILE"),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page.", metavar="PAGE", show_default=False)
    ] = None,
    dtype: Dtype = "auto",
    mirror: Mirror = None,
    as_json: AsJson = False,
) -> None:
    """List the queries that one model answers and the other does not, those beyond seed noise first.

    Queries of the open half alone, with the first ten documents of both.
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.files import check_writable, home, write_json
    from gemma4vec.inspection.flips.flips import find_flips
    from gemma4vec.ledger.run_folder import slug
    from gemma4vec.machine.terminal import bars_by_stage

    loaded = open_dev_suite(suite, task, mirror, "inspect flips shows single queries")
    before, after = [a, *(seed_of_a or [])], [b, *(seed_of_b or [])]
    opened = open_subjects([*before, *after], dtype)
    sides = [opened[: len(before)], opened[len(before) :]]
    names = "-".join(slug(side[0].model.name) for side in sides)
    file = out or home() / "flips" / names / f"{slug(loaded.name)}.json"
    check_writable(file.parent)
    with bars_by_stage(loaded.name) as report:
        found = find_flips(sides[0], sides[1], loaded, most=most, progress=report)
    write_json(file, found)
    if html is not None:
        from gemma4vec.report.flips_page import write_flips_page

        logger.info(f"page: {write_flips_page(html, found, loaded)}")
    texts = dict(zip(loaded.query_ids, loaded.queries, strict=True))
    emit(as_json, {"file": str(file), **found}, lambda value: _render_flips(value, texts))


def explain_command(
    model: Annotated[str, typer.Argument(help="A run, a folder, a hub id or bundled:NAME.")],
    query: Annotated[str, typer.Argument(help="Id of a query of the open half.", metavar="QUERY")],
    suite: Dev,
    task: TaskName = None,
    dtype: Dtype = "auto",
    mirror: Mirror = None,
    as_json: AsJson = False,
) -> None:
    """Explain one query: the right document beside the first wrong one, by words, sentences, and what is cut."""
    from gemma4vec.cli.output import emit
    from gemma4vec.inspection.explain.explain_query import explain_query
    from gemma4vec.machine.terminal import bars_by_stage

    loaded = open_dev_suite(suite, task, mirror, "inspect explain shows single queries")
    (subject,) = open_subjects([model], dtype)
    with bars_by_stage(loaded.name) as report:
        found = explain_query(subject, loaded, query, progress=report)
    texts = dict(zip(loaded.corpus_ids, loaded.corpus, strict=True))
    emit(as_json, found, lambda one: _render_explained(one, {key: text.text for key, text in texts.items()}))


def similar_command(
    model: Annotated[
        list[str], typer.Argument(help="Two models or more; trainings of one recipe are the noise.", metavar="MODEL...")
    ],
    suite: Dev,
    task: TaskName = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; default: HOME/similar/DEV.json.", metavar="FILE"),
    ] = None,
    dtype: Dtype = "auto",
    mirror: Mirror = None,
    as_json: AsJson = False,
) -> None:
    """Compare the rankings and vectors of models: shared top tens, rank-biased overlap, debiased CKA."""
    from gemma4vec.cli.output import emit
    from gemma4vec.files import check_writable, home, write_json
    from gemma4vec.inspection.flips.similar import find_similar
    from gemma4vec.ledger.run_folder import slug
    from gemma4vec.machine.terminal import bars_by_stage

    loaded = open_dev_suite(suite, task, mirror, "inspect similar")
    subjects = open_subjects(model, dtype)
    file = out or home() / "similar" / f"{slug(loaded.name)}.json"
    check_writable(file.parent)
    with bars_by_stage(loaded.name) as report:
        found = find_similar(subjects, loaded, progress=report)
    write_json(file, found)
    emit(as_json, {"file": str(file), **found}, _render_similar)


def _render_flips(found: Mapping[str, Any], texts: Mapping[str, str]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table
    from gemma4vec.text.sanitize import sanitize

    between = found["flipped_between_seeds"]
    noise = "" if between is None else f", {between:.1%} between seeds of one recipe"
    head = (
        f"{found['b']['name']} minus {found['a']['name']} on {found['suite']['name']}, {found['metric']}: of "
        f"{found['queries']} queries {found['gained']} gained, {found['lost']} lost ({found['flipped']:.1%}{noise})"
    )
    rows = [
        [
            sanitize(texts.get(one["query_id"], ""))[:CHARACTERS],
            one["flip"] or "",
            f"{one['difference']:+.3f}",
            f"{one['noise']:.3f}",
            f"{one['rank_a'] or '-'} > {one['rank_b'] or '-'}",
        ]
        for one in found["list"][:SHOWN]
    ]
    parts = [table(["query", "", "difference", "noise", "rank"], rows)] if rows else []
    return Group(Text(head), *parts, *(Text(note) for note in found["notes"]), Text(f"file: {found['file']}"))


def _render_similar(found: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    def row(one: Mapping[str, Any]) -> list[object]:
        shared, ranked = ([one[name][key] for key in ("mean", "low", "high")] for name in ("overlap", "rbo"))
        spans = [f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in (shared, ranked)]
        return [one["a"], one["b"], "yes" if one["same_recipe"] else "", *spans, one["cka"]]

    columns = ["", "", "one recipe", "shared top ten", "rank-biased overlap", "CKA"]
    floor = found["floor"]
    parts = [Text(note) for note in found["notes"]]
    if floor is not None:
        parts.append(
            Text(f"trainings of one recipe share {floor['overlap']:.3f} of the top ten: what lies above is noise")
        )
    title = f"{found['suite']['name']}, {found['queries']} queries; CKA of {found['documents']} documents"
    return Group(table(columns, [row(one) for one in found["pairs"]], title=title), *parts, Text(found["file"]))


def _render_explained(found: Mapping[str, Any], texts: Mapping[str, str]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table
    from gemma4vec.text.sanitize import sanitize

    parts: list[Any] = [Text(f"{found['query_id']}: {sanitize(found['query'])}")]
    if found["gap"] is not None:
        parts.append(Text(f"right minus wrong {found['gap']:+.3f} (BM25 {found['gap_of_bm25']:+.3f})"))
    for one in found["documents"]:
        text = texts[one["doc_id"]]
        cut = "" if one["read"] is None or one["read"] >= len(text) else f", read to character {one['read']}"
        words = ", ".join(f"{word} {value:.1f}" for word, value in list(one["words"].items())[:SHOWN])
        title = (
            f"{one['why']}: {one['doc_id']} at rank {one['rank'] or 'none'}, score {one['score']:.3f}, BM25 "
            f"{one['bm25']:.1f}, first ten of {one['k_occurrence']} queries{cut}; shares {words or 'no word'}"
        )
        most = sorted(one["sentences"], key=lambda part: -abs(part["worth"]))[:SHOWN]
        rows = [[sanitize(text[part["start"] : part["end"]])[:CHARACTERS], f"{part['worth']:+.3f}"] for part in most]
        parts.append(table(["sentence", "worth"], rows, title=title) if rows else Text(title))
    return Group(*parts)
