"""`gemma4vec compare A B`: is the difference between two evaluations more than noise?"""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.comparison.paired import Comparison, QueryDifference

SHOWN = 5  # largest differences printed on either side; --json has more


def compare_command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="Result folder, run folder or id, or a name below HOME/evals such as bm25; several runs of one recipe "
            "with commas between, or recipe:ID for all of them.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other; a bare name is first looked for in A's run.")],
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="One that both have; by default the suite's own (ndcg@10, spearman, mrr, loss)."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Which suite, where both have several.", show_default=False)
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Differences below this do not matter: allows 'equivalent'.", show_default=False),
    ] = None,
    no_worse_than: Annotated[
        float | None,
        typer.Option(
            "--no-worse-than", help="Ask too: is A worse than B by less than this?", metavar="X", show_default=False
        ),
    ] = None,
    allow_different_settings: Annotated[
        bool,
        typer.Option("--allow-different-settings", help="Compare even where texts were cut at different lengths."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random sign flips.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Compare two evaluations query by query: difference A - B, 95% interval, p-value and a verdict.

    p is corrected for the tries that the ledger counts on this suite and metric since the last freeze.
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
    """The runs or results that one argument names."""
    # A folder may have a comma in its name.
    specs = [text] if Path(text).exists() else [part.strip() for part in text.split(",") if part.strip()]
    if not specs:
        raise InputError(f"'{text}' names no result; give a run, a folder, or a name below HOME/evals such as bm25")
    return specs


def _render(found: "Comparison", folder_a: str, folder_b: str) -> Any:
    """The comparison for a person: table, verdict, and where it comes from."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table
    from gemma4vec.evaluation.results.task_scores import PAIRED
    from gemma4vec.statistics.verdict import format_p

    interval, test, items, detectable = found.interval, found.test, name_items(found.kind), found.smallest_detectable
    has_width = interval.high > interval.low
    higher = "A nearer to people, B nearer, equal" if found.kind in PAIRED else "A above, B above, equal"
    figures: list[list[object]] = [
        [f"A  {found.a}", found.mean_a],
        [f"B  {found.b}", found.mean_b],
        ["A - B", f"{interval.mean:+.4f}"],
        ["95% interval of A - B", f"{interval.low:+.4f} to {interval.high:+.4f}" if has_width else "none"],
        [f"p ({'rank swaps' if found.kind in PAIRED else 'paired sign-flip'}), on its own", format_p(test.p)],
        ["comparisons it is one of", found.family.sentence() if found.family else "unknown"],
        [f"{items}: {higher}", f"{found.wins}, {found.losses}, {found.ties}"],
        ["smallest detectable difference", f"{detectable:.4f}" if has_width and isfinite(detectable) else "unknown"],
    ]
    lines = [
        Text(found.sentence(), style="bold"),
        *([Text(f"warning: {found.without_touched.sentence()}")] if found.without_touched else []),
        *([Text(f"seeds: {found.seeds.statement}")] if found.seeds else []),
        *([Text(_no_worse(found), style="bold")] if found.no_worse else []),
        *(
            Text(f"differs: {name}: A {value_a}, B {value_b}")
            for name, (value_a, value_b) in found.differing_settings.items()
        ),
        *_largest("A above B", found.largest_wins),
        *_largest("B above A", found.largest_losses),
        Text(f"A: {folder_a}\nB: {folder_b}"),
    ]
    return Group(table([f"{found.suite}, {test.n} {name_items(found.kind, test.n)}", found.metric], figures), *lines)


def _no_worse(found: "Comparison") -> str:
    """The answer to "no worse than", with what weakens it."""
    asked = found.no_worse
    assert asked is not None
    return f"no worse than {asked.margin:g}? {asked.reason}{f' ({asked.note})' if asked.note else ''}"


def _largest(title: str, queries: "list[QueryDifference]") -> list[Any]:
    """One line with the queries that differ most."""
    from rich.text import Text

    shown = ", ".join(f"{query.query_id} {query.difference:+.2f}" for query in queries[:SHOWN])
    return [Text(f"most {title}: {shown}")] if shown else []
