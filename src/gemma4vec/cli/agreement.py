"""`gemma4vec agreement`: whether a cheap measure (a proxy) may choose between recipes."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.evaluation.planning.proxies import ProxyAgreement
    from gemma4vec.statistics.agreement import ProxyDecisions


def agreement_command(
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="External suite to predict; repeat for the mean of several. Optional if the ledger has only one.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="Metric of the external suite.")] = "ndcg@10",
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            help="Only proxies whose name starts with this; repeatable. Default: all.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="Run that the others are compared with.", show_default=False)
    ] = None,
    least_effect: Annotated[
        float, typer.Option("--least-effect", help="Largest difference on the suite that does not matter.", min=0.0)
    ] = 0.0,
    least_tau: Annotated[
        float, typer.Option("--least-tau", help="Smallest Kendall's tau with which a proxy may promote a recipe.")
    ] = 0.5,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Use evaluated checkpoints instead of finished runs.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap over runs.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Test whether the loss, STS or a compact suite orders the ledger's runs as an external suite does."""
    if not 0.0 < least_tau <= 1.0:
        raise InputError(f"--least-tau {least_tau}: give a number above 0 and at most 1, such as 0.5")
    from gemma4vec.cli.output import emit
    from gemma4vec.evaluation.planning.proxies import judge_proxies, list_evaluated_suites
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger
    from gemma4vec.ledger.overview import find_recorded_run

    with open_ledger(home()) as ledger:
        suites = suite or list_evaluated_suites(ledger)
        if not suite and len(suites) != 1:
            known = f"; the ledger has: {', '.join(suites)}" if suites else "; no run has been evaluated yet"
            raise InputError(f"--suite NAME is missing: name the suite to predict{known}")
        judged = judge_proxies(
            ledger,
            suites,
            metric,
            only=proxy or [],
            control=find_recorded_run(ledger, control)["run_id"] if control else None,
            least_effect=least_effect,
            least_tau=least_tau,
            checkpoints=checkpoints,
            seed=seed,
        )
    plain = {"suites": suites, "metric": metric, "least_tau": least_tau, "proxies": [_plain(one) for one in judged]}
    emit(as_json, plain, lambda _: _render(judged, suites, metric))


def _plain(one: "ProxyAgreement") -> dict[str, Any]:
    return {
        "proxy": one.proxy.name,
        "higher_is_better": one.proxy.higher_is_better,
        "runs": one.runs,
        "values": [one.proxy.values[run] for run in one.runs],
        **asdict(one.found),
        "may_promote": one.promotion.allowed,
        "reason": one.promotion.reason,
        "caveat": one.note,
    }


def _render(judged: "list[ProxyAgreement]", suites: list[str], metric: str) -> Any:
    """One row a proxy, then one line on whether it may promote a recipe."""
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    rows = [
        [
            one.proxy.name,
            one.found.runs,
            _estimate(one.found.tau.value, one.found.tau.low, one.found.tau.high),
            _estimate(one.found.signs.value, one.found.signs.low, one.found.signs.high),
            _denied(one.found.against_control or one.found.pairs),
            "yes" if one.promotion.allowed else "no",
        ]
        for one in judged
    ]
    share = f"{100 * judged[0].found.confidence:.4g}%"
    columns = ["proxy", "runs", f"Kendall tau ({share})", f"same sign ({share})", "proxy yes, suite no", "may promote"]
    control = any(one.found.against_control for one in judged)
    scope = "against the control" if control else "over all pairs of runs"
    lines = [f"{one.proxy.name}: {one.promotion.reason}{f'; {one.note}' if one.note else ''}" for one in judged]
    title = f"{metric} on {' and '.join(suites)}; yes and no {scope}"
    return Group(table(columns, rows, title), *(Text(line) for line in lines))


def _estimate(value: float, low: float, high: float) -> str:
    return "-" if value != value else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _denied(found: "ProxyDecisions") -> str:
    return f"{found.denied} of {found.proxy_yes}" + (f" ({found.false_discovery_rate:.0%})" if found.proxy_yes else "")
