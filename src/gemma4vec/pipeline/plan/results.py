"""The results of a plan as JSON values: lineage, scores, what each step brought, lengths and schemes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemma4vec.evaluation.comparison.compare_seeds import average_runs
from gemma4vec.evaluation.results.marks import model_marks, suite_marks
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence
from gemma4vec.files import folder_bytes
from gemma4vec.ledger.environment import environment
from gemma4vec.ledger.suite_access import HELD_OUT
from gemma4vec.pipeline.matrix.comparison_count import count_comparisons
from gemma4vec.pipeline.matrix.differences import Side, compare_pairs
from gemma4vec.pipeline.matrix.paired_scores import average_query_scores
from gemma4vec.pipeline.matrix.references import load_results, score_interval
from gemma4vec.pipeline.plan.comparisons import UNTRAINED, Compared, list_comparisons, list_with_lengths
from gemma4vec.pipeline.plan.jobs import Outline
from gemma4vec.pipeline.plan.plan_state import PlanFolder, Record
from gemma4vec.statistics.selection import selection_effect

Results = dict[str, dict[str, Result]]
"""Key of a job, or name of a reference -> suite -> result."""


def summarize(
    outline: Outline,
    folder: PlanFolder,
    records: Mapping[str, Record],
    references: Sequence[Path],
    refused: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The contents of the page, as JSON values.

    Args:
        references: folders of the references' results.
        refused: key -> final suite -> why it was not scored.
    """
    plan = outline.plan
    suites = {role: [one["name"] for one in folder.list_suites(role)] for role in ("dev", "final")}
    results: Results = {key: _load(record.results) for key, record in records.items() if record.status == "done"}
    base = {path.name: load_results(path) for path in references}
    comparisons = list_comparisons(outline, records)
    return {
        "plan": plan.name,
        "hypothesis": plan.hypothesis,
        "folder": str(folder.path),
        "metric": plan.metric,
        "budget": plan.budget.minutes if plan.budget else None,
        "minutes": sum(record.seconds for record in records.values()) / 60.0 + _minutes(base),
        "suites": [*folder.list_suites("dev"), *folder.list_suites("final")],
        "steps": [_row(outline, key, records, results.get(key, {}), suites) for key in outline.jobs],
        "references": [
            {"key": name, **_scores(found, suites, plan.metric), "marks": _marks(name, found)}
            for name, found in base.items()
        ],
        "differences": [
            one
            for role, names in suites.items()
            for one in _compare(comparisons, results | base, names, role, plan.metric, plan.smallest_effect)
        ],
        "lengths": _length_table(outline, records, results, suites["dev"]),
        "notes": _notes(records, results, suites),
        "choices": _choices(outline, records, results, suites["dev"], refused),
        "environment": environment(),
    }


def _load(folders: Mapping[str, str]) -> dict[str, Result]:
    return {suite: load_result(Path(path)) for suite, path in folders.items()}


def _minutes(base: Results) -> float:
    found = [result for results in base.values() for result in results.values()]
    return sum(float(result.settings["seconds"]["total"]) for result in found) / 60.0


def _row(
    outline: Outline,
    key: str,
    records: Mapping[str, Record],
    results: Mapping[str, Result],
    suites: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    job, record = outline.jobs[key], records.get(key)
    keep = outline.plan.steps[job.step].keep
    row: dict[str, Any] = {
        "key": key,
        "step": job.step,
        "kind": job.kind,
        "what": _describe(outline, key),
        "parents": outline.parents(job, records),
        "mixture": dict(job.mixture) or None,
        "kept": None if keep is None or record is None else key in outline.used(job.step, records),
        "status": "not run" if record is None else record.status,
        "reason": "" if record is None else record.reason,
        "training_minutes": None if record is None else record.minutes,
        "minutes": 0.0 if record is None else record.seconds / 60.0,
        "run": None if record is None else record.run,
        "model": None if record is None else record.model,
        "held_out": {} if record is None else record.held_out,
        "gigabytes": None,
    }
    if record is not None and record.model and Path(record.model).is_dir():
        row["gigabytes"] = folder_bytes(Path(record.model)) / 1e9
    return row | _scores(results, suites, outline.plan.metric) | {"marks": _marks(key, results)}


def _describe(outline: Outline, key: str) -> str:
    """What a job does, in a few words."""
    job = outline.jobs[key]
    recipe = "" if job.file is None else job.file.name.removesuffix(".yaml")
    if job.kind == "soup":
        return f"soup, {job.method}"
    if job.kind == "quantize":
        return f"{job.scheme}, trained for it ({recipe})" if job.trains else f"{job.scheme}, after training"
    if job.kind == "decode":
        return f"decoder of {job.needs[0]}'s vectors ({recipe})"
    return f"trained by {recipe}"


def describe_losses(losses: Mapping[str, float]) -> str:
    """What a decoder's held-out losses say."""
    if not losses:
        return "no held-out texts"
    shown = ", ".join(f"{loss:.3f} after {name}" for name, loss in losses.items())
    return f"held-out loss in nats a token: {shown}"


def _scores(results: Mapping[str, Result], suites: Mapping[str, Sequence[str]], metric: str) -> dict[str, Any]:
    """Mean over the dev suites, and over the final ones, each with its interval; and every suite's own."""
    found: dict[str, Any] = {"by_suite": {name: score_interval([one], metric) for name, one in results.items()}}
    for role, names in suites.items():
        every = [results[name] for name in names if name in results]
        found[role] = score_interval(every, metric) if every and len(every) == len(names) else None
    return found


def _compare(
    comparisons: Sequence[Compared],
    results: Results,
    suites: Sequence[str],
    role: str,
    metric: str,
    margin: float | None,
) -> list[dict[str, Any]]:
    """All differences on the suites of one role, corrected together and for the looks that the ledger knows."""
    pairs: dict[str, tuple[Side, Side]] = {}
    sides: dict[str, Side] = {}
    for one in comparisons:
        others = one.against or (UNTRAINED,)
        known = [results.get(key, {}) for key in (one.key, *others)]
        if not suites or any(name not in found for found in known for name in suites):
            continue
        ours, theirs = known[0], known[1:]
        sides[one.key] = [[ours[name] for name in suites]]
        sides["+".join(others)] = [[average_runs([found[name] for found in theirs]) for name in suites]]
        pairs[one.name] = (sides[one.key], sides["+".join(others)])
    asked = {one.name: one for one in comparisons}
    named = [(asked[name].key, "+".join(asked[name].against or (UNTRAINED,))) for name in pairs]
    family = count_comparisons(sides, named, metric, len(pairs))
    found = compare_pairs(pairs, metric, family, margin)
    return [
        {"key": asked[name].key, "against": list(asked[name].against), "words": asked[name].words, "role": role}
        | {"name": name, **difference}
        for name, difference in found.items()
    ]


def _length_table(
    outline: Outline, records: Mapping[str, Record], results: Results, dev: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows: models; scores on the dev suites by vector length, the longest first."""
    rows = []
    metric = outline.plan.metric
    for key in list_with_lengths(outline):
        if key not in results or any(name not in results[key] for name in dev):
            continue
        whole = [results[key][name] for name in dev]
        width = int(whole[0].settings["model"]["dimension"])
        cut = {int(length): _load(folders) for length, folders in records[key].lengths.items()}
        scores = {width: score_interval(whole, metric)}
        scores |= {length: score_interval([found[name] for name in dev], metric) for length, found in cut.items()}
        by_length = {str(length): scores[length] for length in sorted(scores, reverse=True)}
        rows.append({"key": key, "what": _describe(outline, key), "lengths": by_length})
    return rows


def _marks(key: str, results: Mapping[str, Result]) -> list[str]:
    """What a model's scores must not be shown without."""
    found = []
    for suite, result in results.items():
        sentence = mark_sentence(result, unchecked=False)
        held_out = str(result.settings.get("look_again") or "").startswith(HELD_OUT)
        plain = replace(result, settings={**result.settings, "look_again": ""}) if held_out else result  # see `_notes`
        found += [f"{key}, {suite}: {mark}." for mark in (*model_marks(plain), *([sentence] if sentence else []))]
    return found


def _notes(records: Mapping[str, Record], results: Results, suites: Mapping[str, Sequence[str]]) -> list[str]:
    notes = [
        "95% intervals (bootstrap for scores, Student's t for differences) and p-values (sign flips, Holm's) are over "
        "queries, of these runs alone: other seeds differ. All suites of a role have equal weight."
    ]
    looks = sum(map(len, results.values()))
    looks += sum(len(folders) for record in records.values() for folders in record.lengths.values())
    notes += [
        f"{key}: a decoder; {describe_losses(record.held_out)}."
        for key, record in records.items()
        if record.kind == "decode" and record.status == "done"
    ]
    notes.append(f"The models of this plan were scored {looks} times; the ledger has every look, and counts them.")
    if suites["final"]:
        notes.append(f"No choice of this plan saw its final suites: {', '.join(suites['final'])}.")
    first = next(iter(results.values()), {})
    return notes + [f"{result.suite}: {mark}." for result in first.values() for mark in suite_marks(result)]


def _choices(
    outline: Outline,
    records: Mapping[str, Record],
    results: Results,
    dev: Sequence[str],
    refused: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """What was chosen by dev scores, how much this flatters them, and which final scores wait for a freeze."""
    found = []
    for name, step in outline.plan.steps.items():
        scored = [key for key in outline.models(name) if key in results]
        if step.keep is not None and len(scored) > step.keep:
            kept = outline.used(name, records)
            found.append(_selection_note(name, scored, kept, results, dev, outline.plan.metric))
    greedy = [job.key for job in outline.jobs.values() if job.kind == "soup" and job.method == "greedy"]
    found += [f"{key} chose its ingredients by the dev suites, so its dev score is too good." for key in greedy]
    for key, reasons in refused.items():
        found += [f"{key} was not scored on {suite}: {reason}." for suite, reason in reasons.items()]
    return found


def _selection_note(
    step: str, scored: Sequence[str], kept: Sequence[str], results: Results, dev: Sequence[str], metric: str
) -> str:
    """How many looks chose, and how much too good the best one's score is (estimated by halving the queries)."""
    scores = [average_query_scores([[results[key][name] for name in dev]], metric) for key in scored]
    effect = selection_effect([one.values_N for one in scores], scores[0].strata).effect
    return (
        f"{step}: {len(kept)} of {len(scored)} runs kept ({', '.join(kept)}) by {len(scored) * len(dev)} looks at "
        f"{', '.join(dev)}; the best one's dev score is too good by about {max(0.0, effect):.4f}, from choosing alone."
    )
