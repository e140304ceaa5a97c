"""The command `gemma4vec`: the list of commands; every failure becomes one line and an exit code.

Exit codes: 0 success, 1 the work failed, 2 bad usage or bad input, 75 stopped by SIGTERM or SIGUSR1 and ready to go on,
130 interrupted.
"""

import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from gemma4vec import __version__
from gemma4vec.cli.lazy import lazy_group
from gemma4vec.errors import Gemma4VecError, Interrupted
from gemma4vec.machine.terminal import show_on

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = {
    "quickstart": (
        "gemma4vec.cli.quickstart:quickstart_command",
        "Train, evaluate and index a code-search model from installed Python code.",
    ),
    "train": ("gemma4vec.cli.train:train_command", "Train a recipe."),
    "eval": ("gemma4vec.cli.eval.eval:evaluate_command", "Evaluate a model on suites."),
    "inspect": (
        "gemma4vec.cli.inspection.inspect:app",
        "Find where a model fails: slices, kinds of failure, geometry; confirm a slice on sealed queries.",
    ),
    "compare": ("gemma4vec.cli.compare:compare_command", "Test whether two evaluations differ."),
    "agreement": (
        "gemma4vec.cli.agreement:agreement_command",
        "Test whether a cheap measure may choose between recipes.",
    ),
    "matrix": (
        "gemma4vec.cli.matrix.matrix:matrix_command",
        "Train many recipes at equal budget and compare them with a control.",
    ),
    "soup": ("gemma4vec.cli.pipeline.soup:soup_command", "Average finished models that were trained from one start."),
    "quantize": (
        "gemma4vec.cli.pipeline.quantize:quantize_command",
        "Quantize a trained model, by rounding its weights or by training them for it.",
    ),
    "pipeline": (
        "gemma4vec.cli.pipeline.plan:plan_command",
        "Run a plan: trainings that build on each other, soups, quantization.",
    ),
    "runs": ("gemma4vec.cli.runs.runs:app", "List, compare and judge runs: the ledger."),
    "invert": (
        "gemma4vec.cli.inversion.invert:invert_command",
        "Write the texts of vectors with a trained decoder, or measure how well it does.",
    ),
    "fanout": (
        "gemma4vec.cli.inversion.fanout:fanout_command",
        "Suggest other queries on the way to a document, and measure them beside noise.",
    ),
    "suggest": (
        "gemma4vec.cli.inversion.suggest:suggest_command",
        "Write other queries for a query with a trained suggester.",
    ),
    "privacy": (
        "gemma4vec.cli.inversion.privacy:privacy_command",
        "Measure how far vectors give their texts away, and what defenses cost.",
    ),
    "report": ("gemma4vec.cli.report:report_command", "Write an HTML report on one or more runs."),
    "ui": ("gemma4vec.cli.servers.ui:ui_command", "Open a window on runs, comparisons and failures in the browser."),
    "search": ("gemma4vec.cli.search.search:search_command", "Search a corpus with a trained model."),
    "index": ("gemma4vec.cli.search.index:index_command", "Build a vector store of a corpus and measure its recall."),
    "encode": ("gemma4vec.cli.encode:encode_command", "Encode a file of any size into a folder of vectors."),
    "serve": (
        "gemma4vec.cli.servers.serve:serve_command",
        "Serve a trained model by HTTP, with OpenAI's /v1/embeddings.",
    ),
    "export": (
        "gemma4vec.cli.export.export:export_command",
        "Export a model to sentence-transformers, ONNX or GGUF, compared with ours there.",
    ),
    "parity": (
        "gemma4vec.cli.export.parity:parity_command",
        "Compare a server or an exported file with a trained model.",
    ),
    "launch": (
        "gemma4vec.cli.launch:app",
        "Print or submit commands and job files for several processes or machines.",
    ),
    "data": ("gemma4vec.cli.data.data:app", "Build, inspect and clean data: pairs, suites, hard negatives."),
    "cache": ("gemma4vec.cli.cache:app", "List and clear cached vectors, rows and models."),
    "bench": (
        "gemma4vec.cli.bench:bench_command",
        "Measure how fast a recipe trains here and suggest faster settings.",
    ),
    "doctor": ("gemma4vec.cli.doctor:doctor_command", "Check hardware, libraries and models on this machine."),
}

app = typer.Typer(
    cls=lazy_group(COMMANDS),
    help="Turn a decoder language model into a text-embedding model, with honest evaluation.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

LONGEST_SIZE = 5  # digits of the number of columns or lines of a terminal
# What a system says of a path itself, wherever it is met.
_OF_A_PATH = {errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _global_options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show the full Python traceback of a failure; allowed anywhere on the line."),
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code: the entry point of the script."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = execute(words)
    gc.freeze()  # at its end Python would look for garbage among millions of objects, for a second or two
    sys.exit(code)


def execute(words: list[str]) -> int:
    """Run one command and return its exit code; a failure prints one line on stderr."""
    own = words[: words.index("--")] if "--" in words else words
    show_traceback = "--traceback" in own
    if show_traceback:
        words = [word for word in own if word != "--traceback"] + words[len(own) :]
    _escape_what_cannot_be_encoded()
    _forget_impossible_sizes()
    try:
        command = get_command(app)
        with show_on(_console), command.make_context("gemma4vec", words) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as finished:
        return finished.exit_code
    except BaseException as error:
        if show_traceback and not isinstance(error, SystemExit):
            import traceback

            traceback.print_exc()
            return _explain(error)[1]
        line, code = _explain(error)
        if line:
            print(line, file=sys.stderr)
        return code


def _forget_impossible_sizes() -> None:
    """Remove COLUMNS and LINES where they are no sizes: rich fails on digits that are no number, such as ²."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name)
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= LONGEST_SIZE):
            del os.environ[name]


def _escape_what_cannot_be_encoded() -> None:
    """An ASCII terminal shows \\xe9 for é, and lone surrogates (of a path that is not UTF-8) as escapes everywhere."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _console() -> "Console":
    """The console for log lines and progress."""
    from gemma4vec.cli.output import console

    return console


def _explain(error: BaseException) -> tuple[str, int]:
    """The line to print (empty: none) and the exit code of a failure."""
    if isinstance(error, Gemma4VecError):
        return f"error: {_one_line(error)}", error.exit_code
    if isinstance(error, typer.TyperException):
        return _explain_usage(error)
    if isinstance(error, Interrupted):
        return f"interrupted: {_one_line(error)}", error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return f"interrupted: {_one_line(error) or 'stopped by Ctrl-C; finished work is saved'}", 130
    if isinstance(error, BrokenPipeError):
        # The reader of our output closed it (`| head`): print nothing, also when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        what = "no space left on the disk" if error.errno == errno.ENOSPC else "the disk quota is used up"
        return f"error: {what}{where}; free some, or choose another folder with --out", 1
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and error.filename:
        return f"error: {error.filename}: {error.strerror}; check its permissions, or choose another folder", 1
    if isinstance(error, OSError) and error.errno in _OF_A_PATH and isinstance(error.filename, str):
        shown = error.filename if len(error.filename) <= 200 else f"{error.filename[:197]}..."
        return f"error: {_one_line(shown)}: {error.strerror}; check the path", 1
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):  # pathlib's, until Python 3.13
        return f"error: {_one_line(error)}; remove the link, or name the file itself", 1
    if isinstance(error, MemoryError):
        return "error: out of memory; use smaller batches or a smaller model (gemma4vec doctor shows what is free)", 1
    if isinstance(error, SystemExit):
        return "", error.code if isinstance(error.code, int) else 1
    what = f"{type(error).__name__}: {_one_line(error)}"
    return f"error: unexpected {what} (run again with --traceback to see where)", 1


def _explain_usage(error: typer.TyperException) -> tuple[str, int]:
    """Bad usage: the mistake, and the --help that explains it."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a subcommand has already printed its help
        return error.format_message(), error.exit_code
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return f"error: {_one_line(error.format_message())}{hint}", error.exit_code


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
