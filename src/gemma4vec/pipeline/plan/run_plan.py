"""Run a plan: one job after another, each in its own process; what is finished is never done again."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.pipeline.matrix.references import (
    ReferenceSpec,
    has_result,
    load_results,
    run_reference,
)
from gemma4vec.pipeline.matrix.run import read_last_step
from gemma4vec.pipeline.plan.budget import training_minutes
from gemma4vec.pipeline.plan.check import check_jobs
from gemma4vec.pipeline.plan.comparisons import list_comparisons, list_with_lengths
from gemma4vec.pipeline.plan.job_spec import JobSpec, read_made
from gemma4vec.pipeline.plan.jobs import Job, Outline, model_settings
from gemma4vec.pipeline.plan.plan_state import PlanFolder, Record
from gemma4vec.pipeline.plan.results import describe_losses, summarize
from gemma4vec.pipeline.plan.work import run_job
from gemma4vec.pipeline.plan.write_plan import write_results
from gemma4vec.pipeline.plan_folder import lock_folder
from gemma4vec.pipeline.suites import explain_held_out, freeze_samples
from gemma4vec.pipeline.worker import Worker, explain_code
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.training.processes.stop_signals import StopSignals
from gemma4vec.training.run import start_run

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0
_RECORD_SECONDS = 10.0  # between two records of a running job's time

# Runs a function with its argument, a log file and a callback about once a second; returns an exit code.
Execute = Callable[[Callable[[Any], None], Any, Path, Callable[[], None]], int]


@dataclass
class _PlanRun:
    """The state of a plan while it runs."""

    outline: Outline
    folder: PlanFolder
    records: dict[str, Record]
    execute: Execute
    dev: list[Path]
    final: list[Path]
    look_again: dict[str, str]
    references: list[ReferenceSpec]
    reference_seconds: float = 0.0  # of the references' evaluations
    refused: dict[str, dict[str, str]] = field(default_factory=dict)  # key -> final suite -> why it was not scored

    @property
    def spent(self) -> float:
        """Minutes of all jobs and references so far."""
        return (sum(record.seconds for record in self.records.values()) + self.reference_seconds) / 60.0


def run_plan(outline: Outline, out: Path, *, command: str, execute: Execute | None = None) -> dict[str, Any]:
    """Run all unfinished jobs, write results.{json,md,html} to `out` and return the results.

    Args:
        outline: from `make_outline`.
        out: folder of the plan; finished jobs in it are not done again.
        command: goes on with the plan, for the message of an interruption.
        execute: runs a job and returns its exit code; by default in a process of its own.

    Raises:
        InputError: `out` belongs to another plan or is in use; a recipe, its data or a suite cannot be used.
        WorkError: a job failed; all that is finished is kept.
        Interrupted: SIGTERM or SIGUSR1; a training has finished its step and saved it.
        KeyboardInterrupt: Ctrl-C; a training has saved its last whole step.
    """
    folder, plan, signals = PlanFolder(out.resolve()), outline.plan, StopSignals(command)
    with lock_folder(folder.path, "plan"), signals.caught():
        folder.store(outline)
        records = folder.records()
        check_jobs(outline, records)
        dev, final = freeze_samples(folder.path, plan.suites.dev, plan.suites.final, _no_source)
        reasons = explain_held_out(f"plan {plan.name}", plan.suites.final, final)
        worker = Worker(folder.path / "logs" / "worker.log", signals)
        references = _references(outline, folder, [*dev, *final], reasons)
        run = _PlanRun(outline, folder, records, execute or _in_worker(worker), dev, final, reasons, references)
        try:
            _run_references(run)
            for job in outline.jobs.values():
                if job.key not in records or records[job.key].status != "done":
                    _run_job(run, job, command)
            _score_final(run, command)
        finally:
            worker.close()
        results = summarize(outline, folder, records, [Path(spec.out) for spec in references], run.refused)
        write_results(results, folder.path)
        return results


def _no_source() -> Any:
    raise InputError("suites: a plan has no suite source:dev or source:test; name a folder in BEIR's layout")


def _in_worker(worker: Worker) -> Execute:
    def execute(work: Callable[[Any], None], argument: Any, log: Path, look: Callable[[], None]) -> int:
        worker.start(work, argument, log)
        return worker.wait(look)

    return execute


def _references(
    outline: Outline, folder: PlanFolder, suites: list[Path], look_again: dict[str, str]
) -> list[ReferenceSpec]:
    """BM25, and the base of the first run without training: a mean of its causal states, without prompts."""
    first = model_settings(outline, next(iter(outline.jobs))).model
    paths, place = [str(path) for path in suites], folder.path / "references"
    return [
        ReferenceSpec("bm25", None, 0, str(place / "bm25"), paths, look_again),
        ReferenceSpec("untrained", first.base, first.max_tokens, str(place / "untrained"), paths, look_again),
    ]


def _run_references(run: _PlanRun) -> None:
    """Evaluate missing references. A failure is logged and does not stop the plan."""
    for spec in run.references:
        if not all(has_result(spec, path) for path in spec.suites):
            logger.info(f"== {spec.name} on {len(spec.suites)} suites")
            log = run.folder.log(f"reference-{spec.name}")
            code = run.execute(run_reference, spec, log, lambda: None)
            if code:
                logger.warning(f"warning: reference {spec.name} failed: {explain_code(code, log)}")
        found = load_results(Path(spec.out)).values()
        run.reference_seconds += sum(float(result.settings["seconds"]["total"]) for result in found)


def _run_job(run: _PlanRun, job: Job, command: str) -> None:
    record = run.records.get(job.key) or _begin(run, job)
    number = list(run.outline.jobs).index(job.key) + 1
    minutes = "" if record.minutes is None else f", {record.minutes:.1f} minutes of training"
    logger.info(f"== {job.key} ({number} of {len(run.outline.jobs)}): {job.kind}{minutes}")
    spec = _spec(run, job, record)
    _execute(run, job, record, spec, command)
    made = read_made(Path(spec.made))
    record.run, record.model, record.results = made.run, made.model, dict(made.results)
    record.lengths = {length: dict(folders) for length, folders in made.lengths.items()}
    record.held_out = dict(made.held_out)
    if not job.makes_model:
        _finish(run, record, describe_losses(record.held_out))
        return
    names = [load_suite(path).name for path in run.dev]
    record.dev = fmean(load_result(Path(record.results[name])).mean[run.outline.plan.metric] for name in names)
    _finish(run, record, f"dev {run.outline.plan.metric} {record.dev:.4f}")


def _finish(run: _PlanRun, record: Record, words: str) -> None:
    record.status, record.reason = "done", ""
    run.folder.write(record)
    logger.info(f"   {words}, {record.seconds / 60:.1f} minutes")


def _execute(run: _PlanRun, job: Job, record: Record, spec: JobSpec, command: str) -> None:
    """Run a job's process; its time is recorded on the way.

    Raises:
        WorkError: it failed.
    """
    before, started = record.seconds, time.monotonic()
    recorded = spoken = started

    def look() -> None:
        nonlocal recorded, spoken
        now = time.monotonic()
        record.seconds = before + now - started
        if now - recorded > _RECORD_SECONDS:
            recorded = now
            run.folder.write(record)
        if record.run is not None and now - spoken > SECONDS_BETWEEN_LINES:
            spoken = now
            step = read_last_step(Path(record.run))
            if step:
                logger.info(f"   step {step['step']}, loss {step['loss'] or float('nan'):.4f}, {now - started:.0f} s")

    try:
        code = run.execute(run_job, spec, run.folder.log(job.key), look)
    finally:
        record.seconds = before + time.monotonic() - started
        run.folder.write(record)
    if code:
        record.reason = explain_code(code, run.folder.log(job.key))
        record.status = "failed"
        run.folder.write(record)
        raise WorkError(f"{job.key}: {record.reason}; what is finished is kept; go on with: {command}")


def _score_final(run: _PlanRun, command: str) -> None:
    """Score the plan's results, and what they are compared with, on the final suites that lack a result."""
    names = [load_suite(path).name for path in run.final]
    results = run.outline.results
    compared = [one.against for one in list_comparisons(run.outline, run.records) if one.key in results]
    wanted = {*results, *(key for keys in compared for key in keys)}
    for key in [key for key in run.outline.jobs if key in wanted]:
        job, record = run.outline.jobs[key], run.records[key]
        if all(name in record.results for name in names):
            continue
        logger.info(f"== {key} on {len(names)} final suites")
        spec = replace(_spec(run, job, record), final=[str(path) for path in run.final])
        _execute(run, job, record, spec, command)
        made = read_made(Path(spec.made))
        record.results = dict(made.results)
        run.folder.write(record)
        if made.refused:
            run.refused[key] = dict(made.refused)


def _begin(run: _PlanRun, job: Job) -> Record:
    """Record that a job begins: with its part of the time, and the run folder of a training."""
    record = Record(job.key, job.step, job.kind, job.definition(), share=job.share)
    budget = run.outline.plan.budget
    if job.trains and budget is not None:
        jobs = list(run.outline.jobs.values())
        others = [one for one in jobs[jobs.index(job) + 1 :] if one.key not in run.records]
        evaluation = run.reference_seconds / 60.0
        known = run.records
        record.minutes = training_minutes(budget.minutes, run.spent, job, others, known, evaluation)
    if job.kind in ("train", "decode"):
        recipe = run.outline.final_recipe(job, record.minutes, _source(run, job))
        record.run = str(start_run(recipe).path.resolve())
    run.records[job.key] = record
    run.folder.write(record)
    return record


def _source(run: _PlanRun, job: Job) -> Path | None:
    """The model folder of the first model that a job builds on."""
    parents = run.outline.parents(job, run.records)
    return Path(run.records[parents[0]].model or "") if parents else None


def _spec(run: _PlanRun, job: Job, record: Record) -> JobSpec:
    folder, source = run.folder, _source(run, job)
    parents = [run.records[key] for key in run.outline.parents(job, run.records)]
    quantized = job.kind == "quantize" and job.trains
    return JobSpec(
        key=job.key,
        kind=job.kind,
        made=str(folder.made(job.key)),
        model=str(folder.model(job.key)),
        results=str(folder.results(job.key)),
        run=record.run if job.kind in ("train", "decode") else None,
        ingredients=[str(one.run if one.kind != "quantize" and one.run else one.model) for one in parents],
        source=None if source is None else str(source),
        method=job.method,
        start_weight=job.start_weight,
        scheme=job.scheme,
        recipe=dump_recipe(run.outline.final_recipe(job, record.minutes, source)) if quantized else None,
        runs=str(folder.runs(job.key)),
        dev=[str(path) for path in run.dev],
        metric=run.outline.plan.metric,
        lengths=list(run.outline.plan.lengths) if job.key in list_with_lengths(run.outline) else None,
        look_again=run.look_again,
    )
