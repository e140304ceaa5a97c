"""`gemma4vec suggest RUN --query Q`: other queries for a query, by a trained suggester."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.dtype import DtypeOption, read_dtype
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.text.text_embedder import TextEmbedder


def suggest_command(
    suggester: Annotated[str, typer.Argument(help="A suggester: its folder, or the run that trained it.")],
    query: Annotated[str, typer.Option("--query", help="The query.")],
    title: Annotated[
        list[str] | None,
        typer.Option("--title", help="Title of one of its first hits. Repeatable.", metavar="TEXT", show_default=False),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index", help="Index or store that is searched for the titles.", metavar="LOCATION", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model of --index; default: the run that built it.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Number of suggestions, at most.", min=1)] = 8,
    dtype: DtypeOption = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of sampled texts.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write other queries for a query, the likeliest first.

    It reads the query alone, or with titles of its first hits. With --index
    the cosine of each suggestion to the query is shown too.
    """
    wanted = read_dtype(dtype)
    if not query.strip():
        raise InputError("--query: it is empty; give at least one word")
    if title and index is not None:
        raise InputError("--title and --index exclude each other; use one")
    if model is not None and index is None:
        raise InputError("--model is the model of an index; name --index too")
    from gemma4vec.cli.output import emit
    from gemma4vec.fanout.suggester import Suggester
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run

    run = None if Path(suggester).exists() else named_run(suggester, home())
    opened = Suggester.load(run.path if run else suggester, dtype=wanted, option="SUGGESTER")
    titles, embedder = list(title or ()), None
    most = opened.facts.reading.titles
    if index is not None:
        titles, embedder = _first_titles(index, model, query, most)
    found = opened.suggest(query, titles, n, seed=seed)
    rows: list[dict[str, Any]] = [
        {"text": one.text, "log_probability": round(one.log_probability, 4), "ended": one.ended} for one in found
    ]
    if embedder is not None and rows:
        own_d, *vectors = embedder.encode_query([query, *(row["text"] for row in rows)])
        for row, vector_d in zip(rows, vectors, strict=True):
            row["cosine"] = round(float(vector_d @ own_d), 6)
    result = {"suggester": opened.facts.name, "query": query, "titles": titles[:most], "suggestions": rows}
    emit(as_json, result, _render)


def _first_titles(location: str, model: str | None, query: str, most: int) -> "tuple[list[str], TextEmbedder]":
    """Titles of the query's first hits, and the model of the index."""
    from gemma4vec.fanout.suggester import title_of
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run
    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.serving.search.index import SearchIndex
    from gemma4vec.serving.search.session import SearchSession
    from gemma4vec.serving.search.store_index import open_for, open_index_at

    if model is None:
        opened = open_index_at(location)
        model = (opened.meta if isinstance(opened, SearchIndex) else opened.store.meta).model
        if named_run(model, home()) is None:
            raise InputError(f"--index {location}: {model} built it, which is no run here; name it with --model")
    run = named_run(model, home())
    embedder, index = open_for(Embedder.load(run.path if run else model), location)
    hits = SearchSession(embedder, index, max(1, most)).ask(query).hits
    return [title_of(hit.document.as_document()) for hit in hits][:most], embedder


def _render(result: dict[str, Any]) -> Any:
    from gemma4vec.cli.output import table

    rows = result["suggestions"]
    if not rows:
        return "It wrote nothing but the query."
    columns = ["suggestion", "log-probability"] + (["cosine"] if "cosine" in rows[0] else [])
    cells = [[row["text"], row["log_probability"], *([row["cosine"]] if "cosine" in row else [])] for row in rows]
    read = f"; titles: {' | '.join(result['titles'])}" if result["titles"] else ""
    return table(columns, cells, f"{result['query']}{read}")
