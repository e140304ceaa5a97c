"""Run a matrix: all planned cells, one after another, each in its own process.

Two cells never train at the same time: on shared hardware their minutes would be meaningless.
"""

import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.evaluation.comparison.find_results import TRAINED
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.ledger.run_folder import EVENTS, RunFolder
from gemma4vec.pipeline.matrix.cell import STOPPED, CellSpec, run_cell
from gemma4vec.pipeline.matrix.freeze_suites import freeze_suites
from gemma4vec.pipeline.matrix.plan import Job, Plan, dump_variants, find_best_cell, list_open_jobs, next_job
from gemma4vec.pipeline.matrix.references import list_missing_references, run_reference, sum_reference_seconds
from gemma4vec.pipeline.matrix.state import Cell, MatrixFolder, Record
from gemma4vec.pipeline.matrix.table import summarize
from gemma4vec.pipeline.matrix.write import write_results
from gemma4vec.pipeline.plan_folder import lock_folder
from gemma4vec.pipeline.suites import explain_held_out
from gemma4vec.pipeline.worker import STOPPED_CODE, Worker, explain_code
from gemma4vec.training.processes.stop_signals import StopSignals
from gemma4vec.training.run import start_run

logger = logging.getLogger(__name__)

_TAIL_BYTES = 16_384  # enough to contain a run's last step event
_RECORD_SECONDS = 10.0  # between two records of a running cell's time


@dataclass(frozen=True)
class CellStatus:
    """A cell's state, as shown to the user."""

    cell: Cell
    state: str
    why: str = ""
    step: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    dev: float | None = None
    minutes: float = 0.0


class MatrixDisplay(Protocol):
    """Shows the progress of a running matrix."""

    def show(self, statuses: list[CellStatus]) -> None:
        """Show all known cells, in the plan's order. Called about once a second."""


@dataclass
class _MatrixRun:
    """The state of a matrix while it runs."""

    plan: Plan
    folder: MatrixFolder
    records: dict[str, Record]
    display: MatrixDisplay
    dev: list[Path]
    final: list[Path]
    worker: Worker
    look_again: dict[str, str]  # final suite's folder -> reason to score unfrozen recipes on it
    skipped: dict[str, str] = field(default_factory=dict)  # cell key -> why the cell does not run


def run_matrix(
    plan: Plan, out: Path, display: MatrixDisplay, *, retry: bool = False, table_only: bool = False
) -> dict[str, Any]:
    """Run all unfinished cells, write results.{json,csv,md,html} to `out` and return the results.

    Args:
        plan: from `make_plan`.
        out: folder of the matrix; finished cells in it do not run again.
        display: shows the progress.
        retry: run failed cells again.
        table_only: run nothing; write the table of the finished cells.

    Raises:
        InputError: `out` belongs to another matrix or is in use; a suite is malformed.
        Interrupted: SIGTERM or SIGUSR1; a training has finished its step and saved it.
        KeyboardInterrupt: Ctrl-C; a training has saved its last whole step.
    """
    folder, signals = MatrixFolder(out.resolve()), StopSignals("the same command")
    with lock_folder(folder.path, "matrix"), signals.caught():
        new = folder.store_matrix(plan.matrix, dump_variants(plan))
        if new:
            logger.info(f"new variants: {', '.join(new)}")
        records = folder.records()
        if retry:
            for key in [key for key, record in records.items() if record.status == "failed"]:
                _reset_failed(folder, records, key)
        dev, final = freeze_suites(plan, folder)
        worker = Worker(folder.path / "logs" / "worker.log", signals)
        reasons = explain_held_out(f"matrix {plan.matrix.name}", plan.matrix.final, final)
        matrix_run = _MatrixRun(plan, folder, records, display, dev, final, worker, reasons)
        try:
            if not table_only:
                _run_references(matrix_run)
            while not table_only and (job := next_job(plan, records, matrix_run.skipped)):
                reason = _check_time_limit(matrix_run, job)
                if reason:
                    matrix_run.skipped[job.cell.key] = reason
                else:
                    _run_job(matrix_run, job)
        finally:
            matrix_run.worker.close()
        waiting = [(job, matrix_run.skipped.get(job.cell.key, "not run yet")) for job in list_open_jobs(plan, records)]
        results = summarize(plan, folder, records, waiting)
        write_results(results, folder.path)
        return results


def _reset_failed(folder: MatrixFolder, records: dict[str, Record], key: str) -> None:
    """Mark a failed cell as unfinished; its run resumes from the last checkpoint."""
    record = records[key]
    record.status, record.reason = ("running" if record.dev is None else "trained"), ""
    folder.write(key, record)


def _check_time_limit(matrix_run: _MatrixRun, job: Job) -> str | None:
    """Why a job would exceed the matrix's `minutes`; None if it fits or no similar job has been timed."""
    limit = matrix_run.plan.matrix.minutes
    if limit is None:
        return None
    spent = (
        sum(record.seconds for record in matrix_run.records.values()) + sum_reference_seconds(matrix_run.folder)
    ) / 60.0
    alike = [
        (record.variant == job.cell.variant, seconds)
        for record in matrix_run.records.values()
        for final, seconds in record.jobs
        if final == _job_kind(job)
    ]
    own = [seconds for same, seconds in alike if same] or [seconds for _, seconds in alike]
    expected = fmean(own) / 60.0 if own else 0.0
    if spent < limit and spent + expected <= limit:
        return None
    return f"{spent:.1f} of {limit:g} minutes spent; this job needs about {expected:.1f}"


def _job_kind(job: Job) -> str:
    """A key shared by jobs that take about the same time."""
    if job.cell.search or job.why == "final":
        return "search" if job.cell.search else "final"
    return f"train{' and final' if job.final else ''}"


def _run_job(matrix_run: _MatrixRun, job: Job) -> None:
    """Run one job and record its outcome."""
    key = job.cell.key
    record = matrix_run.records.get(key) or _begin_cell(matrix_run, job.cell)
    run = RunFolder(matrix_run.folder.path / record.run)
    before, started, recorded_at = record.seconds, time.monotonic(), time.monotonic()

    def look() -> None:
        nonlocal recorded_at
        record.seconds = before + time.monotonic() - started
        if time.monotonic() - recorded_at > _RECORD_SECONDS:
            recorded_at = time.monotonic()
            matrix_run.folder.write(key, record)
        matrix_run.display.show(list_statuses(matrix_run.plan, matrix_run.folder, matrix_run.records, job))

    matrix_run.worker.start(run_cell, _make_cell_spec(matrix_run, job, run), matrix_run.folder.log(key))
    code = matrix_run.worker.wait(look)
    record.seconds = before + time.monotonic() - started
    _record_outcome(matrix_run, job, record, run, code, time.monotonic() - started)
    matrix_run.display.show(list_statuses(matrix_run.plan, matrix_run.folder, matrix_run.records, None))


def _run_references(matrix_run: _MatrixRun) -> None:
    """Evaluate missing references. A failure is logged and does not stop the matrix."""
    for spec in list_missing_references(
        matrix_run.plan, matrix_run.folder, [*matrix_run.dev, *matrix_run.final], matrix_run.look_again
    ):
        logger.info(f"reference {spec.name}")
        log = matrix_run.folder.log(f"reference-{Path(spec.out).name}")
        matrix_run.worker.start(run_reference, spec, log)
        code = matrix_run.worker.wait()
        if code:
            logger.info(f"reference {spec.name} failed: {explain_code(code, log)}")


def _begin_cell(matrix_run: _MatrixRun, cell: Cell) -> Record:
    run = start_run(matrix_run.plan.recipe(cell), matrix_run.folder.runs)
    record = Record(
        cell.variant, cell.rate, cell.seed, str(run.path.relative_to(matrix_run.folder.path)), search=cell.search
    )
    matrix_run.records[cell.key] = record
    matrix_run.folder.write(cell.key, record)
    return record


def _make_cell_spec(matrix_run: _MatrixRun, job: Job, run: RunFolder) -> CellSpec:
    matrix = matrix_run.plan.matrix
    control = _find_stop_control(matrix_run, job) if matrix.stop else None
    return CellSpec(
        run=str(run.path),
        dev=[str(path) for path in matrix_run.dev],
        final=[str(path) for path in matrix_run.final] if job.final else [],
        metric=matrix.metric,
        margin=(matrix.stop.margin or matrix.smallest_effect) if control and matrix.stop else None,
        control=control,
        at_end=job.cell.search,
        save=matrix.save_models,
        look_again=matrix_run.look_again,
    )


def _find_stop_control(matrix_run: _MatrixRun, job: Job) -> str | None:
    """Run folder of the control's best cell, if the stop rule applies to the job: grid cells other than controls.

    Later seeds of a recipe are never stopped: a table without its worst seeds would flatter the recipe.
    """
    plan = matrix_run.plan
    if job.cell.variant in plan.controls.values() or job.cell not in plan.grid(job.cell.variant):
        return None
    cell = find_best_cell(plan, plan.controls[job.cell.variant], matrix_run.records)
    return None if cell is None else str(matrix_run.folder.path / matrix_run.records[cell.key].run)


def _record_outcome(
    matrix_run: _MatrixRun, job: Job, record: Record, run: RunFolder, code: int, seconds: float
) -> None:
    """Record how a job ended."""
    record.jobs.append([_job_kind(job), seconds])
    if code == 0:
        record.dev = fmean(_read_score(run, path, matrix_run.plan.matrix.metric) for path in matrix_run.dev)
        record.status = "done" if job.final else "trained"
    elif code == STOPPED_CODE:
        record.status, record.reason = "stopped", str(run.events(STOPPED)[-1]["reason"])
        if record.search:  # trained to its end
            record.dev = fmean(_read_score(run, path, matrix_run.plan.matrix.metric) for path in matrix_run.dev)
    else:
        record.status, record.reason = "failed", explain_code(code, matrix_run.folder.log(job.cell.key))
    matrix_run.folder.write(job.cell.key, record)


def _read_score(run: RunFolder, suite: Path, metric: str) -> float:
    return load_result(run.evaluation(TRAINED, load_suite(suite).name)).mean[metric]


def list_statuses(
    plan: Plan, folder: MatrixFolder, records: dict[str, Record], running: Job | None
) -> list[CellStatus]:
    """The status of every known cell, in the plan's order."""
    cells = {cell.key: cell for variant in plan.variants for cell in plan.grid(variant)}
    cells |= {job.cell.key: job.cell for job in list_open_jobs(plan, records)}
    for key, record in records.items():
        cells.setdefault(key, record.cell)
    found = []
    for key, cell in cells.items():
        known = records.get(key)
        if known is None:
            found.append(CellStatus(cell, "waiting"))
            continue
        now = running is not None and running.cell.key == key
        state = (
            (running.why if running and now else "interrupted") if known.status == "running" or now else known.status
        )
        step = read_last_step(folder.path / known.run) if now else {}
        found.append(
            CellStatus(
                cell,
                state,
                known.reason,
                step.get("step"),
                step.get("loss"),
                step.get("tokens_per_second"),
                known.dev,
                known.seconds / 60.0,
            )
        )
    return found


def read_last_step(run: Path) -> dict[str, Any]:
    """Read the last step event from the end of a run's events; empty if there is none."""
    file = run / EVENTS
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        lines = stream.read().split(b"\n")
    for line in reversed(lines):
        if b'"event": "step"' in line:
            try:
                return dict(json.loads(line))
            except ValueError:
                continue  # incomplete: still being written, or cut at the start of the tail
    return {}
