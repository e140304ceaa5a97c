"""`gemma4vec compare A B`: whether the difference between two evaluations is more than noise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.comparison.paired import Comparison, QueryDifference

SHOWN = 5  # number of largest differences printed for each side; --json has more


def compare_command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="Result folder, run folder, run id, or a name below HOME/evals such as bm25. Several runs of one "
            "recipe: separate them with commas, or use recipe:ID for all.",
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="The other result, in the same forms. A bare name is looked up in A's run first."
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="A metric of both results; default: the suite's main metric (ndcg@10, spearman, mrr, loss).",
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Suite to compare on, if both have several.", show_default=False)
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", help="Smallest difference that matters; allows the verdict 'equivalent'.", show_default=False
        ),
    ] = None,
    no_worse_than: Annotated[
        float | None,
        typer.Option(
            "--no-worse-than",
            help="Also test whether A is worse than B by less than X.",
            metavar="X",
            show_default=False,
        ),
    ] = None,
    allow_different_settings: Annotated[
        bool,
        typer.Option("--allow-different-settings", help="Compare even if texts were cut at different lengths."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random sign flips.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Compare two evaluations query by query: difference A - B, 95% interval, p-value and verdict.

    The p-value is corrected for all comparisons that the ledger counts on this suite.
    With 6 or more seeds on each side the verdict speaks of the recipes, else of these runs only.
    """
    for option, value in (("--margin", margin), ("--no-worse-than", no_worse_than)):
        if value is not None and not value > 0:
            raise InputError(f"{option} {value}: give a number above zero, such as 0.01")
    from gemma4vec.api.comparing import compare
    from gemma4vec.cli.output import emit

    made = compare(
        _specs(a),
        _specs(b),
        metric,
        suite=suite,
        seed=seed,
        margin=margin,
        no_worse_than=no_worse_than,
        allow_different_settings=allow_different_settings,
    )
    found = made.as_dict()
    emit(as_json, found, lambda _: _render(made.comparison, found["folder_a"], found["folder_b"]))


def _specs(text: str) -> list[str]:
    """Split one argument into the runs or results that it names."""
    # A folder's name may contain a comma.
    specs = [text] if Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()]
    if not specs:
        raise InputError(f"'{text}' names no result; use a run, a folder, or a name below HOME/evals such as bm25")
    return specs


def _render(found: "Comparison", folder_a: str, folder_b: str) -> Any:
    """Table, verdict and result folders."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.api.comparing import comparison_lines, comparison_rows, comparison_title
    from gemma4vec.cli.output import table

    first, *rest = comparison_lines(found)
    lines = [
        Text(first, style="bold"),
        *(Text(line) for line in rest),
        *_largest("A over B", found.largest_wins),
        *_largest("B over A", found.largest_losses),
        *([Text(found.withheld_words())] if found.withheld else []),
        Text(f"A: {folder_a}\nB: {folder_b}"),
    ]
    return Group(table([comparison_title(found), found.metric], comparison_rows(found)), *lines)


def _largest(title: str, queries: "list[QueryDifference]") -> list[Any]:
    """One line with the largest per-query differences."""
    from rich.text import Text

    shown = ", ".join(f"{query.query_id} {query.difference:+.2f}" for query in queries[:SHOWN])
    return [Text(f"largest differences, {title}: {shown}")] if shown else []
