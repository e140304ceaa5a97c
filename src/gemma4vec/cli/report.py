"""`gemma4vec report RUN...`: one HTML file about a run, or a comparison of several."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.statistics.multiplicity import Correction

CORRECTIONS = ("holm", "benjamini-hochberg")


def report_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run ids, folders, latest, or recipe:ID for all runs of a recipe; the first is the control.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Output file; default RUN/report.html, for several runs HOME/reports/NAME.html.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    correction: Annotated[
        str, typer.Option("--correction", help="holm (for claims) or benjamini-hochberg (for exploration).")
    ] = "holm",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Write an HTML report: scores with intervals, corrected verdicts, curves, costs, decisions and examples.

    The file is self-contained: it opens from disk without a network, on a phone and in print.
    """
    if correction not in CORRECTIONS:
        raise InputError(f"--correction {correction}: use one of {', '.join(CORRECTIONS)}")
    folders = list(dict.fromkeys(folder.resolve() for spec in runs for folder in _folders(spec)))
    path = _one(folders[0], out) if len(folders) == 1 else _several(folders, out, correction)  # type: ignore[arg-type]
    from gemma4vec.cli.output import emit

    emit(as_json, {"report": str(path), "runs": [str(folder) for folder in folders]}, lambda _: f"report: {path}")


def _folders(spec: str) -> list[Path]:
    """The run folders that one argument names."""
    from gemma4vec.evaluation.comparison.find_results import runs_of_recipe
    from gemma4vec.files import home
    from gemma4vec.ledger.run_folder import find_run

    if spec.startswith("recipe:"):
        return [Path(path) for path in runs_of_recipe(spec.removeprefix("recipe:"), home())]
    return [find_run(spec, home()).path]


def _one(folder: Path, out: Path | None) -> Path:
    from gemma4vec.report.run_page import write_report

    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder; --out needs a file, such as {out / 'report.html'}")
    return write_report(folder, out)


def _several(folders: list[Path], out: Path | None, correction: "Correction") -> Path:
    from gemma4vec.files import home, sha256_text
    from gemma4vec.ledger.run_folder import slug
    from gemma4vec.report.comparison_page import write_comparison

    if out is None:
        mark = sha256_text(*map(str, folders))[:6]
        out = home() / "reports" / f"{slug(folders[0].name)}-and-{len(folders) - 1}-more-{mark}.html"
    return write_comparison(folders, out, correction)
