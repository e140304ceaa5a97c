"""`gemma4vec index`: build a vector store of a corpus, or of vectors that were encoded before."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma4vec.errors import InputError


def index_command(
    run: Annotated[str, typer.Argument(help="Run folder, run id, latest, or a saved model folder.")],
    source: Annotated[
        Path,
        typer.Argument(help="Corpus (JSONL, Parquet, CSV, TSV, TXT, BEIR folder), or a folder of `gemma4vec encode`."),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="LOCATION",
            help="FOLDER, lance:FOLDER#TABLE, postgresql://HOST/DATABASE#TABLE or qdrant:http://HOST:6333#NAME.",
        ),
    ],
    index: Annotated[
        str,
        typer.Option(
            "--index",
            help="auto, exact, or pq (with faiss), pca_binary, binary, int8, prefix, pca (folder), ivf_sq, ivf_pq, "
            "ivf_flat (LanceDB), hnsw, bit (PostgreSQL), hnsw (Qdrant).",
        ),
    ] = "auto",
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="NAME:TYPE", help="Field for filters: text, int, float or bool.", show_default=False
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries", help="Queries that measure recall; default: those of a BEIR folder.", show_default=False
        ),
    ] = None,
    id_field: Annotated[
        str | None, typer.Option("--id-field", help="Field of the id; default: id or _id.", show_default=False)
    ] = None,
    text_field: Annotated[str, typer.Option("--text-field", help="Field of the text.")] = "text",
    title_field: Annotated[str, typer.Option("--title-field", help="Field of the title.")] = "title",
    row_ids: Annotated[bool, typer.Option("--row-ids", help="Use each row's number, from 1, as its id.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop an existing store first.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the checksums of an existing store's files; build nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Build a vector store, and measure its recall against exact search.

    The store can be a folder, LanceDB, PostgreSQL with pgvector, or Qdrant.
    Rows that it holds already are not embedded again, so the same command
    continues an interrupted build. Search with `gemma4vec search --store`.
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.serving.encode.input_rows import Fields
    from gemma4vec.serving.encode.plan import PLAN
    from gemma4vec.serving.indexing.corpus_rows import QUERIES, CorpusRows, open_corpus, parse_fields, read_queries
    from gemma4vec.serving.store.open_store import parse_location

    if row_ids and id_field is not None:
        raise InputError("--row-ids and --id-field exclude each other; use one")
    parse_location(to)
    if check:
        from gemma4vec.serving.store.open_store import verify_store

        if fresh:
            raise InputError("--check and --fresh exclude each other; use one")
        emit(as_json, verify_store(to), _checked)
        return
    types = parse_fields(field or [])
    encoded = (source / PLAN).is_file()
    if encoded and types:
        raise InputError(f"{source} has the fields tokens and truncated; --field is for a corpus")
    names = Fields(id_field, text_field, title_field, row_ids)
    corpus: CorpusRows | Path = source if encoded else open_corpus(source, types, names)
    if queries is None and (source / QUERIES).is_file():
        queries = source

    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import named_run
    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.serving.indexing.build_store import MOST_QUERIES, build_store

    texts = None if queries is None else read_queries(queries, MOST_QUERIES)
    found = named_run(run, home())
    embedder = Embedder.load(found.path if found is not None else run)
    made = build_store(to, corpus, embedder, index=index, queries=texts, fresh=fresh)
    emit(as_json, made.as_json(), lambda value: _built(value, made.gate.line() if made.gate else "recall not measured"))


def _built(value: dict[str, Any], measured: str) -> str:
    left_out = f", {value['left_out']:,} left out" if value["left_out"] else ""
    return (
        f"{value['location']}: {value['rows']:,} rows ({value['added']:,} added now{left_out}), "
        f"index {value['index']}\n{measured}"
    )


def _checked(value: dict[str, Any]) -> str:
    return f"{value['location']}: {value['rows']:,} rows; the checksums of {value['files']:,} files are right"
