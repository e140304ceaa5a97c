"""`gemma4vec compare A B`: is the difference between two evaluations more than noise?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.compare import Comparison, QueryDifference
    from gemma4vec.evaluation.result import Result
    from gemma4vec.ledger.family import Family

SHOWN = 5  # largest differences printed on either side; --json has more


def compare_command(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="Result folder, run folder or id, or a name below HOME/evals such as bm25."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other; a bare name is first looked for in A's run.")],
    metric: Annotated[str, typer.Option("--metric", help="ndcg@10, recall@100, mrr@10 or map.")] = "ndcg@10",
    suite: Annotated[
        str | None, typer.Option("--suite", help="Which suite, where both have several.", show_default=False)
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Differences below this do not matter: allows 'equivalent'.", show_default=False),
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
    if margin is not None and not margin > 0:
        raise InputError(f"--margin {margin}: give a number above zero, such as 0.01")
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.compare import compare
    from gemma4vec.evaluation.locate import locate_pair
    from gemma4vec.evaluation.result import load_result
    from gemma4vec.files import home

    folder_a, folder_b = locate_pair(a, b, home(), suite)
    result_a, result_b = load_result(folder_a), load_result(folder_b)
    family = _family(result_a, result_b, metric)
    found = compare(
        result_a,
        result_b,
        metric,
        seed=seed,
        margin=margin,
        family=family.size,
        allow_different_settings=allow_different_settings,
    )
    _record(found, result_a, result_b)
    plain = {**found.as_dict(), "family": asdict(family), "folder_a": str(folder_a), "folder_b": str(folder_b)}
    emit(as_json, plain, lambda _: _render(found, family, folder_a, folder_b))


def _family(a: "Result", b: "Result", metric: str) -> "Family":
    """How many comparisons the ledger counts for this suite and metric."""
    from gemma4vec.files import home
    from gemma4vec.ledger.family import family_of
    from gemma4vec.ledger.ledger import open_ledger

    sides = [{"fingerprint": _fingerprint(one), "created": one.settings.get("created")} for one in (a, b)]
    with open_ledger(home(), tolerant=True) as ledger:
        return family_of(ledger, _contents(a), metric, *sides)


def _record(found: "Comparison", a: "Result", b: "Result") -> None:
    """Tell the ledger what was compared and what was said."""
    from gemma4vec.ledger.recording import record_comparison

    fingerprints = {"fingerprint_a": _fingerprint(a), "fingerprint_b": _fingerprint(b)}
    said = {"p": found.verdict.p, "family": found.verdict.family, "verdict": found.verdict.word}
    what = {"suite": found.suite, "suite_fingerprint": _contents(a), "metric": found.metric, "a": found.a, "b": found.b}
    record_comparison({**what, **fingerprints, "difference": found.difference, **said})


def _fingerprint(result: "Result") -> str:
    return result.settings.get("model_fingerprint") or result.model


def _contents(result: "Result") -> str:
    return (result.settings.get("suite") or {}).get("fingerprint") or result.suite


def _render(found: "Comparison", family: "Family", folder_a: Path, folder_b: Path) -> Any:
    """The comparison for a person: table, verdict, and where it comes from."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table
    from gemma4vec.statistics.verdict import format_p

    interval, test = found.interval, found.test
    figures: list[list[object]] = [
        [f"A  {found.a}", found.mean_a],
        [f"B  {found.b}", found.mean_b],
        ["A - B", f"{interval.mean:+.4f}"],
        ["95% interval of A - B", f"{interval.low:+.4f} to {interval.high:+.4f}"],
        ["p (paired sign-flip), on its own", format_p(test.p)],
        ["comparisons it is one of", family.sentence()],
        ["queries: A above, B above, equal", f"{found.wins}, {found.losses}, {found.ties}"],
        ["smallest detectable difference", f"{found.smallest_detectable:.4f}"],
    ]
    lines = [
        Text(found.sentence(), style="bold"),
        *(
            Text(f"differs: {name}: A {value_a}, B {value_b}")
            for name, (value_a, value_b) in found.differing_settings.items()
        ),
        *_largest("A above B", found.largest_wins),
        *_largest("B above A", found.largest_losses),
        Text(f"A: {folder_a}\nB: {folder_b}"),
    ]
    return Group(table([f"{found.suite}, {test.n} queries", found.metric], figures), *lines)


def _largest(title: str, queries: "list[QueryDifference]") -> list[Any]:
    """One line with the queries that differ most."""
    from rich.text import Text

    shown = ", ".join(f"{query.query_id} {query.difference:+.2f}" for query in queries[:SHOWN])
    return [Text(f"most {title}: {shown}")] if shown else []
