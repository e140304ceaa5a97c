"""`gemma4vec search`: find code (or any text) with a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from gemma4vec.errors import InputError

LATEST = "latest"


def search_command(
    run: Annotated[str, typer.Argument(help="Run folder, its name, or 'latest'.")] = LATEST,
    query: Annotated[str | None, typer.Argument(help="What to look for; without it a prompt asks.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits.", min=1)] = 5,
    everything: Annotated[
        bool, typer.Option("--all", help="Search all Python functions installed on this machine.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Search the Python functions of this folder.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per query on stdout.")] = False,
) -> None:
    """Search a corpus with a trained model.

    Without --all or --folder: the test corpus that quickstart embedded. Their first call embeds what it finds, which
    can take minutes; stopped, the same command goes on where it was. Queries are read line by line where standard
    input is no terminal.
    """
    import sys

    from gemma4vec.cli.output import results
    from gemma4vec.files import cache
    from gemma4vec.serving.search.sources import check_source, find_searchable_run, open_index

    if everything and folder is not None:
        raise InputError("--all and --folder exclude each other; give one of them")
    if query is not None and not query.strip():
        raise InputError("the query is empty; say what to look for")
    run_folder = find_searchable_run(run)
    # Mistakes are said before the model is loaded, which takes seconds.
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
