"""`gemma4vec search`: search code, or any text, with a trained model."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from gemma4vec.errors import InputError

logger = logging.getLogger(__name__)

LATEST = "latest"


def search_command(
    run: Annotated[str, typer.Argument(help="Run folder, run id, or latest.")] = LATEST,
    query: Annotated[str | None, typer.Argument(help="The query; default: ask for queries at a prompt.")] = None,
    k: Annotated[int, typer.Option("-k", help="Number of hits.", min=1)] = 5,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Search all Python functions on this machine; of a run on documents, all documents."
        ),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="Search the Python functions of this folder; of a run on documents, its documents.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="LOCATION",
            help="Search this store of `gemma4vec index`, or an index folder.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--filter", help='Only documents that match, as: year >= 2020 and language = "de"'),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Search all rows of the store, not its index.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per query on stdout.")] = False,
) -> None:
    """Search a corpus with a trained model.

    The default corpus is the run's test corpus, which quickstart has indexed.
    A run on a folder of documents searches all of them, as they are now: files
    that were added or changed since are embedded first.

    With --all or --folder, the first search builds an index, which can take
    minutes. If interrupted, the same command continues. --store searches what
    `gemma4vec index` has built; its recall is printed first.

    If standard input is not a terminal, each of its lines is a query.
    """
    import sys

    from gemma4vec.cli.output import results
    from gemma4vec.files import cache
    from gemma4vec.serving.search.sources import check_source, find_searchable_run, open_index
    from gemma4vec.serving.store.filters import parse_filter
    from gemma4vec.serving.store.open_store import parse_location

    if (everything, folder is not None, store is not None).count(True) > 1:
        raise InputError("--all, --folder and --store exclude each other; use one")
    if exact and store is None:
        raise InputError("--exact is for --store; other indexes are always searched exactly")
    if query is not None and not query.strip():
        raise InputError("the query is empty; give at least one word")
    # Report mistakes before loading the model, which takes seconds.
    wanted = None if where is None else parse_filter(where)
    run_folder = find_searchable_run(run)
    if store is not None:
        parse_location(store)
    else:
        check_source(run_folder, everything, folder)

    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.serving.search.index import SearchIndex
    from gemma4vec.serving.search.session import Answer, SearchSession, print_answer, stdin_lines
    from gemma4vec.serving.search.store_index import StoreIndex, open_for

    embedder = Embedder.load(run_folder)
    index: SearchIndex | StoreIndex
    if store is None:
        index = open_index(run_folder, embedder, everything, folder)
    else:
        embedder, index = open_for(embedder, store, exact=exact)
        if isinstance(index, StoreIndex):
            logger.info(index.about())
    session = SearchSession(embedder, index, k, wanted)

    def show(answer: Answer) -> None:
        if as_json:
            print(answer.as_json(), flush=True)
        else:
            print_answer(results, answer)

    if query is not None:
        show(session.ask(query))
    elif sys.stdin.isatty() and not as_json:
        session.prompt(results, cache() / "search_history")
    else:
        session.answer_lines(stdin_lines(), show)
