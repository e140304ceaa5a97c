"""Agreement of cheap measures (proxies) with an external suite, over the runs in the ledger and their folders.

A proxy is any figure of a run that is available before the suite's score: the loss at the end of training, an
evaluation during training, a score on another suite (STS, local rank, compact retrieval).
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.ledger.ledger import Ledger
from gemma4vec.ledger.overview import all_runs, drop_truncated, recorded_evaluations
from gemma4vec.ledger.records import CHECKPOINT, is_own_model, recipe_tree
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.statistics.agreement import Agreement, Promotion, agreement, may_promote

LOSS = "training loss"
NOT_MEASURED = {"time", "event", "stage", "step", "tokens", "seconds", "low", "high", "queries", "documents"}
ALPHA = 0.05
END = 20  # the loss at the end is the mean over the last twentieth of a stage's steps


@dataclass(frozen=True)
class Proxy:
    """A figure of runs.

    Attributes:
        name: "training loss", "SUITE METRIC (in training)" or "SUITE METRIC".
        values: run id -> value.
        higher_is_better: False for losses.
    """

    name: str
    values: Mapping[str, float]
    higher_is_better: bool = True


@dataclass(frozen=True)
class ProxyAgreement:
    """Agreement of one proxy with the suite.

    Attributes:
        runs: ids of the runs that have both figures, in order of their start.
        found: rank correlation and decisions.
        promotion: whether the proxy may decide alone.
        note: weaknesses of the comparison itself, or empty.
    """

    proxy: Proxy
    runs: list[str]
    found: Agreement
    promotion: Promotion
    note: str


def judge_proxies(
    ledger: Ledger,
    suites: Sequence[str],
    metric: str,
    *,
    only: Sequence[str] = (),
    control: str | None = None,
    least_effect: float = 0.0,
    least_tau: float = 0.5,
    checkpoints: bool = False,
    of_all: bool = False,
    seed: int = 0,
) -> list[ProxyAgreement]:
    """Compare every proxy with the mean of `metric` over `suites`, over the ledger's runs; best agreement first.

    Args:
        suites: names of external suites; a run counts if it was evaluated on all of them.
        only: prefixes of the names of proxies; empty for all.
        control: id of the run that others are compared with.
        least_effect: differences on the suite up to this size count as ties.
        least_tau: smallest rank correlation with which a proxy can promote a recipe.
        checkpoints: use the runs' evaluated checkpoints instead of their finished models. Checkpoints of one run are
            not independent; the intervals ignore this, and the notes mention it.
        of_all: correct the intervals for all proxies that have values, also those that `only` leaves out: for a choice
            among them that was made earlier.
        seed: of the resampling.

    Returns:
        One for each proxy that was asked. Whoever asks K proxies and takes the best has chosen, so the intervals have
        the confidence 1 - .05 / K each (Bonferroni), and a promotion rests on them.

    Raises:
        InputError: no such suite, fewer than 2 runs evaluated on it, no proxy.
    """
    runs = {run["run_id"]: run for run in all_runs(ledger)}
    rows_of_runs = [row for row in drop_truncated(recorded_evaluations(ledger)) if row["run_id"] in runs]
    if checkpoints:
        rows = [{**row, "run_id": f"{row['run_id']}:{row['model']}"} for row in rows_of_runs if _place(row["model"])]
        runs = {unit: runs[unit.split(":")[0]] for unit in sorted({row["run_id"] for row in rows})}
    else:
        rows = [row for row in rows_of_runs if is_own_model(row["model"])]
    target = _target(rows, suites, metric)
    if len(target) < 2:
        raise InputError(
            f"agreement needs 2 or more runs evaluated on {' and '.join(suites)} with {metric}, the ledger has "
            f"{len(target)}; evaluate more with: gemma4vec eval RUN --suite DIR"
        )
    proxies = [*_from_training(runs), *_from_suites(rows, suites, metric)]
    usable = [proxy for proxy in proxies if len(target.keys() & proxy.values.keys()) >= 2]
    wanted = [proxy for proxy in usable if not only or any(proxy.name.startswith(one) for one in only)]
    asked = max(1, len(usable if of_all else wanted))
    judged = []
    for proxy in wanted:
        common = [run for run in runs if run in target and run in proxy.values]
        found = agreement(
            [proxy.values[run] for run in common],
            [target[run] for run in common],
            proxy_higher_is_better=proxy.higher_is_better,
            least_suite=least_effect,
            control=common.index(control) if control in common else None,
            confidence=1.0 - ALPHA / asked,
            seed=seed,
        )
        note = _note([runs[run] for run in common], proxy, checkpoints, asked)
        judged.append(ProxyAgreement(proxy, common, found, may_promote(found, least_tau), note))
    if not judged:
        known = ", ".join(proxy.name for proxy in proxies) or "none at all"
        raise InputError(f"no proxy has values for 2 or more of these runs; the ledger has: {known}")
    return sorted(judged, key=lambda one: -one.found.tau.value if math.isfinite(one.found.tau.value) else math.inf)


def list_evaluated_suites(ledger: Ledger) -> list[str]:
    """Return the names of the suites that runs were evaluated on."""
    return sorted({row["suite"] for row in recorded_evaluations(ledger) if is_own_model(row["model"])})


def _target(rows: Sequence[Mapping[str, Any]], suites: Sequence[str], metric: str) -> dict[str, float]:
    """Return each run's mean score over the suites, for the runs that have all of them."""
    by_suite = []
    for suite in suites:
        own = [row for row in rows if row["suite"] == suite]
        if not own:
            known = sorted({row["suite"] for row in rows})
            raise InputError(f"no run was evaluated on a suite '{suite}'; the ledger has: {', '.join(known) or 'none'}")
        by_suite.append(_scores(own, metric))
    common = set.intersection(*(set(scores) for scores in by_suite))
    return {run: fmean(scores[run] for scores in by_suite) for run in common}


def _scores(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return each run's newest score on a suite, on the contents that most runs were evaluated on."""
    by_contents: dict[str, dict[str, float]] = {}
    for row in rows:
        if metric in row["mean"]:
            by_contents.setdefault(row["suite_fingerprint"], {})[row["run_id"]] = row["mean"][metric]
    return max(by_contents.values(), key=len, default={})


def _from_suites(rows: Sequence[Mapping[str, Any]], suites: Sequence[str], metric: str) -> list[Proxy]:
    """Make proxies of the scores on other suites, and of other metrics on the same suite."""
    names = sorted({(row["suite"], name) for row in rows for name in row["mean"]})
    proxies = []
    for suite, name in names:
        if suite in suites and (name == metric or len(suites) == 1):
            continue  # a suite is no proxy of itself
        values = _scores([row for row in rows if row["suite"] == suite], name)
        proxies.append(Proxy(f"{suite} {name}", values, not name.endswith("loss")))
    return proxies


def _from_training(runs: Mapping[str, Mapping[str, Any]]) -> list[Proxy]:
    """Make proxies of the measurements during training, for runs whose folders exist."""
    values: dict[str, dict[str, float]] = {}
    for run_id, run in runs.items():
        if run["deleted"]:
            continue
        with contextlib.suppress(InputError, OSError):
            events = RunFolder(Path(run["path"])).events()
            for name, value in _measured(_until(events, run_id.partition(":")[2])).items():
                values.setdefault(name, {})[run_id] = value
    return [Proxy(name, found, "loss" not in name) for name, found in sorted(values.items())]


def _until(events: Sequence[Mapping[str, Any]], checkpoint: str) -> Sequence[Mapping[str, Any]]:
    """Return the events up to a checkpoint; all events if none is named."""
    place = _place(checkpoint)
    if place is None:
        return events
    return [event for event in events if (int(event.get("stage") or 0), int(event.get("step") or 0)) <= place]


def _measured(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the loss at the end of the last stage, and the last value of each evaluated figure."""
    steps = [event for event in events if event.get("event") == "step" and _finite(event.get("loss"))]
    found: dict[str, float] = {}
    if steps:
        last = [event["loss"] for event in steps if event.get("stage") == steps[-1].get("stage")]
        found[LOSS] = fmean(last[-max(1, len(last) // END) :])
    for event in events:
        if event.get("event") == "evaluation":
            for name, value in event.items():
                if name not in NOT_MEASURED and _finite(value):
                    found[f"{event.get('suite', 'evaluation')} {name} (in training)"] = float(value)
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _note(runs: Sequence[Mapping[str, Any]], proxy: Proxy, checkpoints: bool, asked: int) -> str:
    """Describe the weaknesses of the comparison itself."""
    notes = [_other_losses(runs)] if proxy.name == LOSS else []
    if checkpoints:
        several = len({run["run_id"] for run in runs})
        notes.append(f"checkpoints of {several} runs are not independent: the interval is too narrow")
    if asked > 1:
        notes.append(f"corrected for {asked} proxies: whoever takes the best of them has chosen")
    return "; ".join(note for note in notes if note)


def _place(model: str) -> tuple[int, int] | None:
    """Return stage and step of a checkpoint from its result name; None for anything else."""
    parts = model.split("-")
    if parts[0] != CHECKPOINT or len(parts) != 3:
        return None
    return int(parts[1]), int(parts[2])


def _other_losses(runs: Sequence[Mapping[str, Any]]) -> str:
    """Warn if losses are of different objectives or batches, and so not comparable."""
    stages = [(recipe_tree(run["recipe"]).get("stages") or [{}])[-1] or {} for run in runs]
    differing = [key for key in ("task", "batch", "data") if len({repr(stage.get(key)) for stage in stages}) > 1]
    return f"the runs differ in {' and '.join(differing)}, so their losses are not comparable" if differing else ""
