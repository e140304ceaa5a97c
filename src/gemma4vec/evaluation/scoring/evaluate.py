"""Evaluate one model on one suite of any kind: the only way to a score, guarded and recorded."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.group import AnySuite, OneSuite, SuiteGroup
from gemma4vec.data.suites.held_out_rows import RowSuite
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sts import StsSuite
from gemma4vec.data.suites.suite import describe_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import OpenedAs, Result, check_output_folder, save_result
from gemma4vec.evaluation.results.task_scores import TaskScores
from gemma4vec.evaluation.scoring.contamination_mark import find_mark, mean_without_touched
from gemma4vec.evaluation.scoring.dense_ranker import EmbedderRanker, Vectors
from gemma4vec.evaluation.scoring.guards import check_allowed, check_ancestors, find_lineage, find_owner
from gemma4vec.evaluation.scoring.metrics import DEFAULT_METRICS, DEPTH
from gemma4vec.evaluation.scoring.mteb_suite import MtebSuite, _score_mteb
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, Ranking, no_progress
from gemma4vec.evaluation.scoring.score_pairs import _score_sts
from gemma4vec.evaluation.scoring.score_retrieval import _score_retrieval
from gemma4vec.evaluation.scoring.score_rows import _score_rows
from gemma4vec.files import check_writable
from gemma4vec.ledger.environment import versions
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import new_id, now
from gemma4vec.ledger.recording import at_the_cost_of_a_warning, record_evaluation, record_look
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import contents_record, describe_overlaps, open_final
from gemma4vec.text.text_embedder import TextEmbedder


def evaluate(
    model: TextEmbedder | Ranker,
    suite: AnySuite | MtebSuite,
    out: Path | None = None,
    *,
    name: str | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    depth: int = DEPTH,
    documents_MD: Vectors | None = None,
    progress: Progress = no_progress,
    run: RunFolder | None = None,
    look_again: str = "",
    rankings: dict[str, Ranking] | None = None,
    opened: OpenedAs | None = None,
) -> Result:
    """Score a model on every task of a suite, and write the result to `out`.

    A final suite is scored for frozen recipes only, and once for each run. The run's small training data is first
    checked against the suite (`evaluation.scoring.guards`). The ledger records every look, also if nothing is written
    (docs/concepts/ledger.md).

    Args:
        model: an embedder, or anything with `rank` such as `Bm25Model`.
        suite: a suite of any kind, a group of suites of one kind, or a task of mteb.
        out: folder for metrics.json, per_query.parquet and top.parquet; None writes nothing.
        name: of the model in the result, such as "trained"; None for the model's own name.
        metrics: for retrieval, names from `evaluation.scoring.metrics`; the suite's main one is added.
        depth: number of documents per query that count.
        documents_MD: float32[M, D], the vectors of the only task's corpus, if the caller already has them.
        progress: called as `progress(stage, done, total)`; in a group the stage begins with the task's name.
        run: the model's run; by default the one it was loaded from, else the one around `out`.
        look_again: reason for a further look at a final suite, stored with the scores.
        rankings: filled with the ranking of each retrieval task, for `inspection/`.
        opened: the words by which the suite was opened (`open_any_suite.opened_as`), stored with the scores so that
            later commands find its texts; no fingerprint depends on them.

    Raises:
        InputError: an unknown metric; `out` holds other files; a locked suite; a final suite for a recipe that is not
            frozen, or for a run that was already scored on it; a suite that needs vectors for a model without them; a
            suite that does not fit into memory; a damaged contamination record.
        WorkError: vectors that are not finite or not of unit length; a full disk.
    """
    if out is not None:
        check_output_folder(out)
        check_writable(out)
    owner = find_owner(model, name=name, run=run, out=out)
    fits = documents_MD is not None
    accesses = check_allowed(model, [suite], owner=owner, look_again=look_again, depth=depth, fits=fits)
    seen = [suite, *(suite.members if isinstance(suite, SuiteGroup) else [])]
    for access, one in zip(accesses, seen, strict=True):
        open_final(access, owner.viewer, one, look_again)
    started = time.perf_counter()
    ranker = model if isinstance(model, Ranker) else EmbedderRanker(model, documents_MD)
    described = describe_suite(suite)
    tasks = None if isinstance(suite, MtebSuite) else suite.members  # mteb's texts are not compared with rows
    lineage = find_lineage(model, owner)
    check_ancestors(lineage, [] if tasks is None else tasks, owner)
    mark = find_mark(lineage, tasks)
    weights: str | None = getattr(model, "weights", None)
    scored = _score_all(ranker, model, suite, metrics, depth, progress, {} if rankings is None else rankings)
    settings = {
        "model": ranker.describe(),
        "model_fingerprint": ranker.fingerprint,
        **({"model_weights": weights} if weights else {}),
        "kind": suite.kind,
        "metric": described["metric"],
        "suite": described,
        **describe_quality(suite.kind, {task: one.quality for task, one in scored.items()}),
        "seconds": {**_summed([one.seconds for one in scored.values()]), "total": time.perf_counter() - started},
        "versions": versions(),
        "created": now(),
        "look": new_id(),
        "run": owner.ids,
        "contamination": mark,
        **({"look_again": look_again} if look_again else {}),
        **({"opened": dict(opened)} if opened else {}),
        **({"overlaps": overlaps} if (overlaps := describe_overlaps(accesses)) else {}),
    }
    result = Result(name or ranker.name, suite.name, {task: one.items for task, one in scored.items()}, settings)
    settings["scores"] = result.digest()
    settings["ledger"] = record_look(
        result.model, result.suite, settings, result.metrics, [record for one in seen for record in _contents(one)]
    )
    for task, contents in described.get("tasks", {}).items():  # a look at a group is a look at each task
        one_task = {**settings, "suite": contents, "look": new_id(), "scores": None}
        record_look(result.model, task, one_task, result.metrics)
    if out is not None:
        save_result(
            result,
            out,
            rest=mean_without_touched(result),
            top=[{"task": task, **row} for task, one in scored.items() for row in one.top],
        )
        record_evaluation(out)
    return result


def _score_all(
    ranker: Ranker,
    model: TextEmbedder | Ranker,
    suite: AnySuite | MtebSuite,
    metrics: Sequence[str],
    depth: int,
    progress: Progress,
    rankings: dict[str, Ranking],
) -> dict[str, TaskScores]:
    """Score every task of the suite."""
    if isinstance(suite, MtebSuite):
        if isinstance(model, Ranker):
            raise InputError(f"{suite.name} needs vectors, and {model.name} has none; evaluate it on a suite of ours")
        return _score_mteb(model, suite, metrics=metrics, progress=progress)
    several = isinstance(suite, SuiteGroup)
    scored: dict[str, TaskScores] = {}
    for task in suite.members:
        stages = partial(_report_task, progress, task.name) if several else progress
        scored[task.name] = _score(ranker, model, task, metrics, depth, stages, rankings)
    return scored


def _score(
    ranker: Ranker,
    model: TextEmbedder | Ranker,
    task: OneSuite,
    metrics: Sequence[str],
    depth: int,
    progress: Progress,
    rankings: dict[str, Ranking],
) -> TaskScores:
    """Score one task by its kind."""
    if isinstance(task, RetrievalSuite):
        wanted = list(dict.fromkeys([*metrics, *([task.metric] if task.metric else [])]))
        return _score_retrieval(ranker, task, metrics=wanted, depth=depth, progress=progress, rankings=rankings)
    if isinstance(model, Ranker):
        raise InputError(
            f"{task.name} ({task.kind}) needs vectors, and {model.name} has none; evaluate it on retrieval"
        )
    if isinstance(task, StsSuite):
        return _score_sts(model, task, progress=progress)
    assert isinstance(task, RowSuite)
    return _score_rows(model, task, progress=progress)


def record_command_look(
    command: str,
    model: TextEmbedder | Ranker,
    suite: AnySuite,
    metrics: Sequence[str],
    *,
    variant: str = "",
) -> None:
    """Record that a command has scored a model on a suite by itself, before it shows a score.

    Args:
        command: its name, such as "export"; the look's record has it as `by`.
        metrics: what it shows.
        variant: what was made of the model and scored, such as "q8_0"; it counts as another model.
    """
    owner, named = find_owner(model), f" ({variant})" if variant else ""
    weights: str | None = getattr(model, "weights", None)
    settings = {
        "model_fingerprint": f"{model.fingerprint}{f' {variant}' if variant else ''}",
        **({"model_weights": weights} if weights and not variant else {}),
        "suite": describe_suite(suite),
        "created": now(),
        "look": new_id(),
        "run": owner.ids,
        "by": command,
    }
    record_look(f"{model.name}{named}", suite.name, settings, metrics, _contents(suite))


def _contents(suite: AnySuite | MtebSuite) -> list[Record]:
    """Return the record of the suite's texts that the ledger lacks, by which it is recognized under another name."""
    with at_the_cost_of_a_warning(f"the texts of {suite.name}"):
        return contents_record(suite)
    return []


def _report_task(progress: Progress, task: str, stage: str, done: int, total: int) -> None:
    progress(f"{task} {stage}", done, total)


def describe_quality(kind: str, by_task: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Describe signs of unreliable scores: `ranking` for retrieval, `quality` for other kinds; in groups also by task.

    Over several tasks, rates are averaged and counts summed; one degenerate task marks the group.
    """
    name = "ranking" if kind in ("retrieval", "compact-retrieval") else "quality"
    if len(by_task) == 1:
        return {name: next(iter(by_task.values()))}
    every = list(by_task.values())
    whole: dict[str, Any] = {}
    for key, value in every[0].items():
        values = [one[key] for one in every]
        if isinstance(value, bool):
            whole[key] = any(values)
        elif isinstance(value, float):
            whole[key] = sum(values) / len(values)
        elif isinstance(value, int) and key.startswith("queries_"):
            whole[key] = sum(values)
        else:
            whole[key] = value if all(one == value for one in values) else None
    return {name: {**whole, "tasks": by_task}}


def _summed(every: Sequence[dict[str, float]]) -> dict[str, float]:
    """Sum the seconds of all tasks by stage."""
    summed: dict[str, float] = {}
    for one in every:
        for stage, seconds in one.items():
            summed[stage] = summed.get(stage, 0.0) + seconds
    return summed
