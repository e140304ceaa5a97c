"""`gemma4vec search`: search code, or any text, with a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from gemma4vec.errors import InputError

LATEST = "latest"


def search_command(
    run: Annotated[str, typer.Argument(help="Run folder, run id, or latest.")] = LATEST,
    query: Annotated[str | None, typer.Argument(help="The query; default: ask for queries at a prompt.")] = None,
    k: Annotated[int, typer.Option("-k", help="Number of hits.", min=1)] = 5,
    everything: Annotated[
        bool, typer.Option("--all", help="Search all Python functions installed on this machine.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Search the Python functions of this folder.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per query on stdout.")] = False,
) -> None:
    """Search a corpus with a trained model.

    The default corpus is the run's test corpus, which quickstart has indexed.

    With --all or --folder, the first search builds an index, which can take
    minutes. If interrupted, the same command continues.

    If standard input is not a terminal, each of its lines is a query.
    """
    import sys

    from gemma4vec.cli.output import results
    from gemma4vec.files import cache
    from gemma4vec.serving.search.sources import check_source, find_searchable_run, open_index

    if everything and folder is not None:
        raise InputError("--all and --folder exclude each other; use one")
    if query is not None and not query.strip():
        raise InputError("the query is empty; give at least one word")
    run_folder = find_searchable_run(run)
    # Report mistakes before loading the model, which takes seconds.
    check_source(run_folder, everything, folder)

    from gemma4vec.model.inference.embedder import Embedder
    from gemma4vec.serving.search.session import Answer, SearchSession, print_answer, stdin_lines

    embedder = Embedder.load(run_folder)
    session = SearchSession(embedder, open_index(run_folder, embedder, everything, folder), k)

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
