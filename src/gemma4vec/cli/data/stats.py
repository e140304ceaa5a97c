"""`gemma4vec data stats TRAIN`: statistics of training data, as a table, as JSON and as an HTML page."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.data.quality.profile import CountTokens, Similarity

logger = logging.getLogger(__name__)


def stats_command(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="TRAIN...", help="Training data: JSONL files, a recipe (.yaml), a run folder, pycode or debian."
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="BASE",
            help="Count tokens of this base (bundled:NAME, hub id, folder) instead of words.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Also measure how hard negatives are by this model's cosines.", show_default=False
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", help="Largest number of rows to measure in each source.", min=1)
    ] = 5_000,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML page with plots.", show_default=False)
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Treat texts as code: split identifiers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON on stdout.")] = False,
) -> None:
    """Describe each source: rows, lengths, languages, word overlap of query and positive, hardness of negatives."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.resolve_names import load_source, resolve_sources
    from gemma4vec.data.ngrams.language import detection_method, make_detector
    from gemma4vec.data.quality.profile import profile_rows
    from gemma4vec.report.data_page import write_data_page

    sources = resolve_sources(train)
    count = _counter(tokenizer) if tokenizer else None
    similarity = _similarity(model) if model else None
    profiles = []
    for source in sources:
        rows, _ = load_source(source)
        logger.info(f"{source.name}: {len(rows):,} rows")
        profiles.append(
            profile_rows(
                source.name,
                rows,
                sample=sample,
                detect=make_detector(),
                count=count,
                similarity=similarity,
                code=code or source.source == "pycode",
            )
        )
    if html is not None:
        write_data_page(html, profiles)
    found = {
        "sources": [one.as_dict() for one in profiles],
        "languages_by": detection_method(),
        "page": str(html) if html else None,
    }
    emit(as_json, found, _render)


def _counter(spec: str) -> "CountTokens":
    """A function that counts tokens with a base's tokenizer, special tokens included."""
    from gemma4vec.model.bases.resolve import resolve_base
    from gemma4vec.model.tokenize.tokenizer import load_tokenizer
    from gemma4vec.text.prompts import Prompted

    tokenizer = load_tokenizer(resolve_base(spec).path, append_eos=False)

    def count(texts: list[str]) -> list[int]:
        return [len(tokens.ids) for tokens in tokenizer.encode([Prompted("", text) for text in texts], 2**20)]

    return count


def _similarity(spec: str) -> "Similarity":
    """A function that returns the model's cosines of query-document pairs."""
    import numpy as np
    from numpy.typing import NDArray

    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.text.prompts import Document

    if not spec.strip():
        raise InputError("--model is empty; use a run folder, a model folder or a hub id")
    embedder = Embedder.load(spec)

    def cosines(queries: list[str], documents: list[Document]) -> NDArray[np.float32]:
        distinct = list(dict.fromkeys(queries))
        place = {query: number for number, query in enumerate(distinct)}
        queries_ND = embedder.encode_query(distinct)[[place[query] for query in queries]]
        found: NDArray[np.float32] = np.einsum("nd,nd->n", queries_ND, embedder.encode_document(documents))
        return found

    return cosines


def _render(found: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    unit = found["sources"][0]["unit"]
    heading = [
        "source",
        "rows",
        "neg/row",
        f"query {unit}",
        f"positive {unit}",
        "languages",
        "shared",
        "as near",
        "above",
    ]
    rows: list[list[object]] = [
        [
            one["name"],
            f"{one['rows']:,}",
            f"{one['negatives'] / one['rows']:.1f}" if one["rows"] else None,
            _lengths(one["lengths"]["query"]),
            _lengths(one["lengths"]["positive"]),
            _languages(one["languages"]),
            _percent(one["overlap"] and one["overlap"]["mean"]),
            _percent(one["as_near"]),
            _percent(one["above"]),
        ]
        for one in found["sources"]
    ]
    if all(row[-1] is None for row in rows):
        heading, rows = heading[:-1], [row[:-1] for row in rows]
    notes = [
        "lengths: median, 95th percentile, maximum; shared: mean share of a query's words in its positive; as near: "
        f"negatives that share at least as many; languages detected by {found['languages_by']}"
    ]
    if found["page"]:
        notes.append(f"page: {found['page']}")
    return Group(table(heading, rows), *map(Text, notes))


def _lengths(spread: dict[str, Any] | None) -> str | None:
    return None if spread is None else f"{spread['median']:,.0f} {spread['high']:,.0f} {spread['largest']:,.0f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"


def _languages(by_field: dict[str, dict[str, int]]) -> str:
    """The two most common languages of queries and positives."""
    from gemma4vec.data.ngrams.language import format_language

    both: dict[str, int] = {}
    for field in ("query", "positive"):
        for code, count in by_field[field].items():
            both[code] = both.get(code, 0) + count
    total = sum(both.values()) or 1
    ordered = sorted(both.items(), key=lambda one: -one[1])[:2]
    return ", ".join(f"{format_language(code)} {count / total:.0%}" for code, count in ordered)
