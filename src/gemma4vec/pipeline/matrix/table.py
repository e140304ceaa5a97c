"""The final table of a matrix: scores with intervals, spread over seeds, paired difference to the control, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from gemma4vec.evaluation.comparison.find_results import TRAINED, results_by_suite
from gemma4vec.evaluation.results.marks import model_marks, suite_marks
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.ledger.environment import environment
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.pipeline.matrix.comparison_count import count_comparisons
from gemma4vec.pipeline.matrix.differences import Side, compare_pairs
from gemma4vec.pipeline.matrix.paired_scores import average_query_scores
from gemma4vec.pipeline.matrix.plan import Job, Plan, choose_cell
from gemma4vec.pipeline.matrix.references import list_reference_rows, sum_reference_seconds
from gemma4vec.pipeline.matrix.state import MatrixFolder, Record
from gemma4vec.statistics.seeds import MIN_RUNS


@dataclass(frozen=True)
class _Run:
    """A finished cell with its results by suite."""

    seed: int
    folder: RunFolder
    dev: list[Result]
    final: list[Result]


def summarize(
    plan: Plan, folder: MatrixFolder, records: Mapping[str, Record], waiting: Sequence[tuple[Job, str]]
) -> dict[str, Any]:
    """The contents of all tables, as JSON values.

    Args:
        waiting: jobs that did not run, with the reason.
    """
    metric = plan.matrix.metric
    runs = {name: _load_runs(plan, folder, records, name) for name in plan.variants}
    rows = [_make_row(plan, records, name, runs[name], metric) for name in plan.variants]
    differences = _compare_with_controls(plan, runs, metric)
    for row in rows:
        row["difference"] = differences.get(row["variant"])
    references = list_reference_rows(plan, folder, metric)
    failed = [(key, record) for key, record in records.items() if record.status == "failed"]
    return {
        "matrix": plan.matrix.name,
        "hypothesis": plan.matrix.hypothesis,
        "folder": str(folder.path),
        "metric": metric,
        "control": plan.matrix.control,
        "suites": _list_suites(runs),
        "rows": rows,
        "references": references,
        "search_rows": plan.matrix.search.rows if plan.searching and plan.matrix.search else None,
        "grid": [_grid_row(plan, records, name) for name in plan.variants],
        "failed": [{"cell": key, "variant": record.variant, "reason": record.reason} for key, record in failed],
        "stopped": [
            {"cell": key, "variant": record.variant, "reason": record.reason}
            for key, record in records.items()
            if record.status == "stopped"
        ],
        "not_run": [{"variant": job.cell.variant, "cell": job.cell.key, "reason": why} for job, why in waiting],
        "notes": [*_list_notes(plan, runs, rows), *(note for row in references for note in row["marks"])],
        "minutes": (sum(record.seconds for record in records.values()) + sum_reference_seconds(folder)) / 60.0,
        "environment": environment(),
    }


def _load_runs(plan: Plan, folder: MatrixFolder, records: Mapping[str, Record], variant: str) -> list[_Run]:
    """The finished cells of a variant at its chosen learning rate, by seed."""
    best = choose_cell(plan, variant, records)
    if best is None:
        return []
    dev_names = {sample["name"] for sample in folder.list_suites("dev")}
    found = []
    for record in records.values():
        if (record.variant, record.rate, record.status, record.search) != (variant, best.rate, "done", False):
            continue
        run = RunFolder(folder.path / record.run)
        results = {name: load_result(path) for name, path in results_by_suite(run.path / "evals" / TRAINED).items()}
        dev = [result for name, result in results.items() if name in dev_names]
        final = [result for name, result in results.items() if name not in dev_names]
        found.append(_Run(record.seed, run, dev, final))
    return sorted(found, key=lambda run: run.seed)


def _make_row(plan: Plan, records: Mapping[str, Record], name: str, runs: list[_Run], metric: str) -> dict[str, Any]:
    variant, best = plan.variants[name], choose_cell(plan, name, records)
    row: dict[str, Any] = {
        "variant": name,
        "recipe": variant.recipe,
        "base": plan.recipe(plan.grid(name)[0]).model.base,
        "axes": variant.axes,
        "control": name in plan.controls.values(),
        "status": "done" if runs else _find_status(plan, records, name),
        "learning_rate": None if best is None else _learning_rate(plan, name, best.rate),
        "grid_complete": all((r := records.get(c.key)) and r.dev is not None for c in plan.grid(name)),
        "seeds": [run.seed for run in runs],
        "dev": None,
        "final": {},
        "final_mean": None,
        "spread": None,
    }
    if not runs:
        record = None if best is None else records.get(best.key)
        if record is not None and record.dev is not None:
            row["dev"] = {"mean": record.dev}
        return row
    row["dev"] = _interval([run.dev for run in runs], metric)
    for suite in sorted({result.suite for result in runs[0].final}):
        row["final"][suite] = _interval([[r for r in run.final if r.suite == suite] for run in runs], metric)
    row["final_mean"] = _interval([run.final for run in runs], metric)
    row["spread"] = _spread([_mean(run.final, metric) for run in runs])
    return row | _mean_cost([run.folder for run in runs])


def _interval(runs: Sequence[Sequence[Result]], metric: str) -> dict[str, Any]:
    interval = average_query_scores(runs, metric).interval
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "queries": interval.n}


def _mean(results: Sequence[Result], metric: str) -> float:
    return average_query_scores([results], metric).interval.mean


def _spread(means: list[float]) -> dict[str, Any]:
    """The spread of the final mean over seeds."""
    sd = stdev(means) if len(means) > 1 else None
    return {"seeds": len(means), "min": min(means), "max": max(means), "sd": sd}


def _mean_cost(runs: list[RunFolder]) -> dict[str, Any]:
    """The cost of a training, all stages together, averaged over seeds."""
    costs = [_run_cost(run) for run in runs]
    means: dict[str, Any] = {key: fmean(cost[key] for cost in costs) for key in costs[0] if key != "rows_hash"}
    whole = {key: round(value) for key, value in means.items() if key != "minutes"}
    return means | whole | {"rows_hash": [cost["rows_hash"] for cost in costs]}


def _run_cost(run: RunFolder) -> dict[str, Any]:
    stages = {event["stage"]: event for event in run.events("stage_finished")}
    noted = {event["stage"]: event for event in run.events("cell")}
    contrast = [stage for stage, event in noted.items() if event["contrast"]]
    parameters = run.manifest["parameters"]
    return {
        "rows": sum(stages[stage]["rows"] for stage in contrast if stage in stages),
        "tokens": sum(event["tokens"] for event in stages.values()),
        "flops": sum(noted[stage]["flops_per_token"] * event["tokens"] for stage, event in stages.items()),
        "minutes": sum(event["seconds"] for event in stages.values()) / 60.0,
        "peak_memory_bytes": max(event["peak_memory_bytes"] for event in stages.values()),
        "trainable": parameters["trainable"],
        "total": parameters["total"],
        "rows_hash": " ".join(str(noted[stage]["rows_hash"]) for stage in contrast),
    }


def _compare_with_controls(plan: Plan, runs: Mapping[str, list[_Run]], metric: str) -> dict[str, dict[str, Any]]:
    """Each variant against its control on their common seeds; p-values corrected by Holm's method."""
    common = {
        name: sorted({run.seed for run in runs[name]} & {run.seed for run in runs[control]})
        for name, control in plan.controls.items()
        if name != control
    }
    common = {name: seeds for name, seeds in common.items() if seeds}
    finals = {name: [run.final for run in found] for name, found in runs.items() if found}
    family = count_comparisons(finals, list(plan.controls.items()), metric, len(common))
    pairs: dict[str, tuple[Side, Side]] = {}
    for name, seeds in common.items():
        ours, theirs = ([run.final for run in runs[one] if run.seed in seeds] for one in (name, plan.controls[name]))
        pairs[name] = (ours, theirs)
    found = compare_pairs(pairs, metric, family, plan.matrix.smallest_effect)
    return {
        name: {"control": plan.controls[name], "seeds": common[name], **difference}
        for name, difference in found.items()
    }


def _grid_row(plan: Plan, records: Mapping[str, Record], name: str) -> dict[str, Any]:
    """Dev score of each learning rate; None if the cell was stopped, failed or did not run."""
    cells = plan.grid(name)
    return {
        "variant": name,
        "scores": {
            f"{_learning_rate(plan, name, cell.rate):g}": (record.dev if (record := records.get(cell.key)) else None)
            for cell in cells
        },
        "status": {
            f"{_learning_rate(plan, name, cell.rate):g}": (
                record.status if (record := records.get(cell.key)) else "not run"
            )
            for cell in cells
        },
    }


def _learning_rate(plan: Plan, name: str, rate: float | None) -> float:
    """A cell's learning rate; the recipe's own if the matrix sets none."""
    if rate is not None:
        return rate
    stages = plan.recipe(plan.grid(name)[0]).stages
    return next(stage.optimizer.learning_rate for stage in reversed(stages) if stage.task.kind == "contrast")


def _find_status(plan: Plan, records: Mapping[str, Record], name: str) -> str:
    """Why a variant has no scores."""
    cells = [*plan.grid(name), choose_cell(plan, name, records)]
    known = [record.status for cell in cells if cell is not None and (record := records.get(cell.key))]
    return next((status for status in ("failed", "stopped") if status in known), "not run")


def _list_suites(runs: Mapping[str, list[_Run]]) -> list[dict[str, Any]]:
    """The suites of the first finished run."""
    first = next((found[0] for found in runs.values() if found), None)
    if first is None:
        return []
    return [
        {
            "suite": result.suite,
            "role": role,
            **{key: result.settings["suite"][key] for key in ("queries", "documents")},
        }
        for role, results in (("dev", first.dev), ("final", first.final))
        for result in results
    ]


def _list_notes(plan: Plan, runs: Mapping[str, list[_Run]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes that a reader needs to interpret the table."""
    notes = [
        "95% intervals (bootstrap for scores, Student's for differences) and p-values (sign flips, Holm's) are "
        f"over queries; from {MIN_RUNS} seeds a recipe, those of differences are over seeds and queries (bootstrap, "
        "Student's t). All suites have equal weight."
    ]
    seeds = [len(found) for found in runs.values() if found]
    if seeds and min(seeds) < MIN_RUNS:
        span = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
        notes.append(
            f"Seeds per recipe: {span}. The table describes these runs only, not other seeds: a sign-flip test over "
            f"fewer than {MIN_RUNS} seeds cannot reach p < .05."
        )
    for name, found in runs.items():
        notes += [
            f"{name}, seed {run.seed}, {result.suite}: {mark}."
            for run in found
            for result in (*run.dev, *run.final)
            for mark in model_marks(result)
        ]
    first = next((found[0] for found in runs.values() if found), None)
    for result in (*first.dev, *first.final) if first else ():
        notes += [f"{result.suite}: {mark}." for mark in suite_marks(result)]
    for row in rows:
        if row["status"] == "done" and not row["grid_complete"]:
            notes.append(f"{row['variant']}: some learning rates have no dev score; see the table of learning rates.")
        unequal = _seeds_with_other_rows(plan, runs, row["variant"])
        if unequal:
            notes.append(f"{row['variant']} saw other rows than {plan.controls[row['variant']]} (seed {unequal}).")
        notes += _note_other_limit(plan, row["variant"])
        if (row["difference"] or {}).get("touched_queries"):
            count = row["difference"]["touched_queries"]
            notes.append(f"{row['variant']}: training data touches {count:,} queries; its difference leaves them out.")
    controls = [name for name in dict.fromkeys(plan.controls.values()) if not runs[name]]
    notes += [f"The control {name} has no finished run, so nothing is compared with it." for name in controls]
    return notes


def _seeds_with_other_rows(plan: Plan, runs: Mapping[str, list[_Run]], name: str) -> str:
    """Seeds for which a variant saw other rows than its control, or another order; empty if none."""
    theirs = {run.seed: _run_cost(run.folder)["rows_hash"] for run in runs[plan.controls[name]]}
    return ", ".join(
        str(run.seed)
        for run in runs[name]
        if run.seed in theirs and _run_cost(run.folder)["rows_hash"] != theirs[run.seed]
    )


def _note_other_limit(plan: Plan, name: str) -> list[str]:
    """A note if a recipe reads more or less of each text than its control."""
    ours, theirs = (plan.recipe(plan.grid(one)[0]).model.max_tokens for one in (name, plan.controls[name]))
    if ours == theirs:
        return []
    return [f"{name} reads up to {ours} tokens of a text and {plan.controls[name]} up to {theirs}."]
