"""`gemma4vec runs`: the ledger of runs, looks at suites, comparisons and decisions."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.ledger.journal import Record
    from gemma4vec.ledger.ledger import Ledger

logger = logging.getLogger(__name__)

app = typer.Typer(help="List, compare and judge runs: the ledger.")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id or a unique start or end of it, run folder, or latest.")
]
Words = Annotated[str, typer.Argument(metavar="WORDS", help="Reason, in words.", show_default=False)]


@app.callback(invoke_without_command=True)
def list_command(ctx: typer.Context, as_json: Json = False) -> None:
    """List all runs. Subcommands show, compare and judge them."""
    if ctx.invoked_subcommand is not None:
        return
    from gemma4vec.cli.output import emit
    from gemma4vec.cli.runs.runs_table import run_table
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger
    from gemma4vec.ledger.overview import all_runs, with_status_now

    with open_ledger(home()) as ledger:
        runs = [with_status_now(run) for run in all_runs(ledger)]
    emit(as_json, [_brief(run) for run in runs], run_table)


@app.command("show")
def show_command(run: Run, as_json: Json = False) -> None:
    """Show one run: recipe, parents, data, code, machine, cost, hypothesis, scores, decisions."""
    from gemma4vec.cli.output import emit
    from gemma4vec.cli.runs.runs_table import run_page
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger
    from gemma4vec.ledger.overview import find_recorded_run, newest_evaluations, with_status_now

    with open_ledger(home()) as ledger:
        found = with_status_now(find_recorded_run(ledger, run))
        found["evaluations"] = newest_evaluations(ledger, found["run_id"])
        found["decisions"] = ledger.rows(
            "SELECT time, decision, words FROM decisions WHERE run_id = ? ORDER BY time, seq", (found["run_id"],)
        )
    emit(as_json, found, run_page)


@app.command("diff")
def diff_command(
    a: Annotated[str, typer.Argument(metavar="A", help="First run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Second run.")],
    as_json: Json = False,
) -> None:
    """Show the differences between two runs: recipe, data, code, machine, scores."""
    from gemma4vec.cli.output import emit
    from gemma4vec.cli.runs.runs_table import difference_page
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger
    from gemma4vec.ledger.overview import diff_runs, find_recorded_run

    with open_ledger(home()) as ledger:
        run_a, run_b = find_recorded_run(ledger, a), find_recorded_run(ledger, b)
        found = {"a": run_a["run_id"], "b": run_b["run_id"], **diff_runs(ledger, run_a, run_b)}
    emit(as_json, found, difference_page)


@app.command("decide")
def decide_command(
    run: Run,
    decision: Annotated[str, typer.Argument(metavar="keep|drop|repeat", help="The decision.")],
    words: Words = "",
    by: Annotated[
        str | None,
        typer.Option("--by", help="Proxy that the decision rests on (see gemma4vec agreement).", show_default=False),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="With --by: suite that the proxy replaces; repeatable.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Record a decision about a run and its reason. Earlier decisions stay on record.

    A `keep` that rests on a proxy (--by) is refused if the proxy does not agree with the suite (--on).
    """
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger
    from gemma4vec.ledger.overview import find_recorded_run
    from gemma4vec.ledger.recording import decide

    if (by is None) != (not on):
        raise InputError("--by PROXY and --on SUITE need each other; use both or none")
    with open_ledger(home()) as ledger:
        found = find_recorded_run(ledger, run)
        promoted = _promotion(ledger, by, on, decision) if by and on else None
    record = decide(home(), found, decision, words, promoted)
    _done(as_json, record, f"{found['run_id']}: {decision}")


def _promotion(ledger: "Ledger", proxy: str, suites: list[str], decision: str) -> dict[str, Any]:
    """The proxy's agreement with the suites, for the record.

    Raises:
        InputError: the decision is `keep` and the proxy's agreement is below the threshold.
    """
    from gemma4vec.evaluation.planning.proxies import judge_proxies

    judged = judge_proxies(ledger, suites, "ndcg@10", only=[proxy], of_all=True)
    if len(judged) > 1:
        raise InputError(f"'{proxy}' matches {', '.join(one.proxy.name for one in judged)}; use a longer name")
    tau, verdict = judged[0].found.tau, judged[0].promotion
    if decision == "keep" and not verdict.allowed:
        raise InputError(f"{judged[0].proxy.name} {verdict.reason}; evaluate the run on {' and '.join(suites)} instead")
    return {"proxy": judged[0].proxy.name, "suites": suites, "tau": tau.value, "low": tau.low, "high": tau.high}


@app.command("detectable")
def detectable_command(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Retrieval suite, as for eval --suite.")],
    metric: Annotated[str, typer.Option("--metric", help="Metric of the planned comparison.")] = "ndcg@10",
    seeds: Annotated[int, typer.Option("--seeds", help="Number of runs planned for each recipe.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Forecast the smallest difference that a suite can detect, uncorrected and corrected for earlier comparisons."""
    from gemma4vec.cli.output import emit
    from gemma4vec.data.loading.open_suite import open_suite
    from gemma4vec.data.suites.retrieval import RetrievalSuite
    from gemma4vec.evaluation.planning.power_forecast import forecast_power

    loaded = open_suite(suite)
    tasks = [one for one in loaded.members if isinstance(one, RetrievalSuite)]
    if not tasks:
        raise InputError(f"{suite} is of kind {loaded.kind}; the forecast needs a retrieval suite")
    sizes = [len(one.queries) for one in tasks]
    found = forecast_power(loaded.name, loaded.fingerprint, sum(sizes), metric, runs=seeds, tasks=sizes)
    emit(as_json, {**vars(found), "sentence": found.sentence()}, lambda _: found.sentence())


@app.command("freeze")
def freeze_command(run: Run, words: Words = "", as_json: Json = False) -> None:
    """Freeze a run's recipe: final suites and those that are locked now open for its runs. No count changes."""
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger
    from gemma4vec.ledger.overview import find_recorded_run
    from gemma4vec.ledger.recording import freeze

    with open_ledger(home()) as ledger:
        found = find_recorded_run(ledger, run)
    if not found["recipe_id"]:
        raise InputError(f"run {found['run_id']} has no recipe id; only runs of a recipe can be frozen")
    record = freeze(home(), found["recipe_id"], found["run_id"], words)
    frozen = f"frozen: recipe {found['recipe_id']} of {found['run_id']}"
    _done(as_json, record, f"{frozen}; its runs may be scored on final suites, each once")


@app.command("lock")
def lock_command(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="Suite, as for eval --suite: a name, a folder or a list.")
    ],
    words: Words = "",
    mirror: Annotated[
        Path | None, typer.Option("--mirror", metavar="DIR", help="Folder with copies of hub data sets, as OWNER/NAME.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lock a final suite and its tasks: no model is evaluated on them until a recipe is frozen."""
    from gemma4vec.data.suites.group import SuiteGroup
    from gemma4vec.evaluation.scoring.open_any_suite import open_any_suite
    from gemma4vec.files import home
    from gemma4vec.ledger.recording import lock
    from gemma4vec.ledger.suite_access import contents_record

    loaded = open_any_suite(suite, mirror=mirror)
    if loaded.role == "dev":
        raise InputError(f"{suite} is a dev suite; only final suites can be locked (role: final)")
    for one in loaded.members if isinstance(loaded, SuiteGroup) else []:  # else each member could be evaluated alone
        lock(home(), one.name, one.fingerprint, words, contents_record(one))
    record = lock(home(), loaded.name, loaded.fingerprint, words, contents_record(loaded))
    _done(as_json, record, f"locked: {loaded.name}, until a recipe is frozen with: gemma4vec runs freeze RUN")


@app.command("looks")
def looks_command(as_json: Json = False) -> None:
    """Count the looks at each suite and the models evaluated on it, in total and since the last freeze."""
    from gemma4vec.cli.output import emit
    from gemma4vec.cli.runs.runs_table import look_table
    from gemma4vec.files import home
    from gemma4vec.ledger.comparison_count import count_looks
    from gemma4vec.ledger.ledger import open_ledger

    with open_ledger(home()) as ledger:
        rows = count_looks(ledger)
    emit(as_json, rows, look_table)


@app.command("sql")
def sql_command(
    query: Annotated[
        str, typer.Argument(metavar="SELECT", help="One SELECT statement; docs/concepts/ledger.md lists the views.")
    ],
    as_json: Json = False,
) -> None:
    """Query the ledger in SQL, read-only."""
    from gemma4vec.cli.output import emit, table
    from gemma4vec.files import home
    from gemma4vec.ledger.ledger import open_ledger

    with open_ledger(home()) as ledger:
        columns, rows = ledger.select(query)
    emit(as_json, [dict(zip(columns, row, strict=True)) for row in rows], lambda _: table(columns, rows))


@app.command("rebuild")
def rebuild_command(as_json: Json = False) -> None:
    """Rebuild the index from the journal, run folders and evaluations. Counts of looks never decrease."""
    from dataclasses import asdict

    from gemma4vec.cli.output import emit
    from gemma4vec.files import home
    from gemma4vec.ledger.rebuild import rebuild

    done = rebuild(home())
    for line in done.damaged:
        logger.warning(f"warning: {line}")
    summary = (
        f"{done.records:,} records; {done.from_index:,} only in the old index, {done.from_folders:,} only in folders"
    )
    aside = f"\nthe damaged index was moved to {done.kept_aside}" if done.kept_aside else ""
    emit(as_json, asdict(done), lambda _: summary + aside)


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run in the list."""
    names = ("run_id", "name", "created", "recipe_id", "status", "hypothesis", "scores", "further_looks", "decision")
    return {name: run[name] for name in (*names, "words", "path", "deleted")}


def _done(as_json: bool, record: "Record", line: str) -> None:
    from gemma4vec.cli.output import emit

    emit(as_json, {"id": record.id, "kind": record.kind, "time": record.time, **record.body}, lambda _: line)
