"""Run a matrix: one cell after the other, each in a process of its own, until all that was planned is done.

Two runs never train at the same time: on one processor they would only make each other's minutes meaningless.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from filelock import FileLock, Timeout

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.find_results import TRAINED
from gemma4vec.evaluation.results.result import METRICS_FILE
from gemma4vec.ledger.run_folder import EVENTS, RunFolder
from gemma4vec.pipeline.matrix.cell import STOPPED, CellJob
from gemma4vec.pipeline.matrix.plan import Job, Plan, best_of_grid, next_job, open_jobs, variant_texts
from gemma4vec.pipeline.matrix.references import open_references, seconds_of
from gemma4vec.pipeline.matrix.state import Cell, MatrixFolder, Record
from gemma4vec.pipeline.matrix.suites import freeze_suites, held_out_words
from gemma4vec.pipeline.matrix.table import summarise
from gemma4vec.pipeline.matrix.worker import INTERRUPTED_CODE, STOPPED_CODE, Worker, explain_code
from gemma4vec.pipeline.matrix.write import write_results
from gemma4vec.training.run import start_run

logger = logging.getLogger(__name__)

_TAIL_BYTES = 16_384  # enough of a run's events for its last step
_KEEP_SECONDS = 10.0  # between two notes of the time that a running cell has taken


@dataclass(frozen=True)
class View:
    """What a person sees of a cell."""

    cell: Cell
    state: str
    why: str = ""
    step: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    dev: float | None = None
    minutes: float = 0.0


class Watch(Protocol):
    """Shows a matrix while it runs."""

    def show(self, views: list[View]) -> None:
        """All cells that are known, in the plan's order; called about once a second."""


@dataclass
class _MatrixRun:
    """The state of a matrix while it runs."""

    plan: Plan
    folder: MatrixFolder
    records: dict[str, Record]
    watch: Watch
    dev: list[Path]
    final: list[Path]
    worker: Worker
    look_again: dict[str, str]  # final suite's folder -> why an unfrozen recipe may be scored on it
    left_out: dict[str, str] = field(default_factory=dict)  # cell key -> why it is not run now


def run_matrix(plan: Plan, out: Path, watch: Watch, *, retry: bool = False, table_only: bool = False) -> dict[str, Any]:
    """Do what is not done yet, and write results.json, results.md and results.csv to `out`; gives the results.

    Args:
        plan: of `make_plan`.
        out: the matrix's folder; what is finished there is kept.
        watch: shows how it goes.
        retry: run failed cells again.
        table_only: run nothing, write the table of what is there.

    Raises:
        InputError: `out` belongs to another matrix, or to one that is running; a suite is malformed.
    """
    folder = MatrixFolder(out.resolve())
    with _alone(folder):
        new = folder.agree(plan.matrix, variant_texts(plan))
        if new:
            logger.info(f"new in this matrix: {', '.join(new)}")
        records = folder.records()
        if retry:
            for key in [key for key, record in records.items() if record.status == "failed"]:
                _try_again(folder, records, key)
        dev, final = freeze_suites(plan, folder)
        worker = Worker(folder.path / "logs" / "worker.log")
        matrix_run = _MatrixRun(plan, folder, records, watch, dev, final, worker, held_out_words(plan, final))
        try:
            if not table_only:
                _run_references(matrix_run)
            while not table_only and (job := next_job(plan, records, matrix_run.left_out)):
                reason = _does_not_fit(matrix_run, job)
                if reason:
                    matrix_run.left_out[job.cell.key] = reason
                else:
                    _run(matrix_run, job)
        finally:
            matrix_run.worker.close()
        waiting = [(job, matrix_run.left_out.get(job.cell.key, "not run yet")) for job in open_jobs(plan, records)]
        results = summarise(plan, folder, records, waiting)
        write_results(results, folder.path)
        return results


@contextlib.contextmanager
def _alone(folder: MatrixFolder) -> Iterator[None]:
    """Hold the folder: a second matrix in it would train the same cells."""
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.path / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{folder.path} is in use by a matrix that is running; wait for it, or use --out") from error


def _try_again(folder: MatrixFolder, records: dict[str, Record], key: str) -> None:
    """A failed cell goes on where it failed; its run folder resumes."""
    record = records[key]
    record.status, record.reason = ("running" if record.dev is None else "trained"), ""
    folder.write(key, record)


def _does_not_fit(matrix_run: _MatrixRun, job: Job) -> str | None:
    """Why a job is left out, where the matrix has a limit; None where it fits or none like it was timed yet."""
    limit = matrix_run.plan.matrix.minutes
    if limit is None:
        return None
    spent = (sum(record.seconds for record in matrix_run.records.values()) + seconds_of(matrix_run.folder)) / 60.0
    alike = [
        (record.variant == job.cell.variant, seconds)
        for record in matrix_run.records.values()
        for final, seconds in record.jobs
        if final == _key_of(job)
    ]
    own = [seconds for same, seconds in alike if same] or [seconds for _, seconds in alike]
    expected = fmean(own) / 60.0 if own else 0.0
    if spent < limit and spent + expected <= limit:
        return None
    return f"{spent:.1f} of {limit:g} minutes are spent and it would take about {expected:.1f}"


def _key_of(job: Job) -> str:
    """Which jobs take about the same time."""
    if job.cell.search or job.why == "final":
        return "search" if job.cell.search else "final"
    return f"train{' and final' if job.final else ''}"


def _run(matrix_run: _MatrixRun, job: Job) -> None:
    """One job from its start to its record."""
    key = job.cell.key
    record = matrix_run.records.get(key) or _begin(matrix_run, job.cell)
    run = RunFolder(matrix_run.folder.path / record.run)
    before, started, kept = record.seconds, time.monotonic(), time.monotonic()

    def look() -> None:
        nonlocal kept
        record.seconds = before + time.monotonic() - started
        if time.monotonic() - kept > _KEEP_SECONDS:
            kept = time.monotonic()
            matrix_run.folder.write(key, record)
        matrix_run.watch.show(views(matrix_run.plan, matrix_run.folder, matrix_run.records, job))

    matrix_run.worker.start(_cell_job(matrix_run, job, run), matrix_run.folder.log(key))
    code = _wait(matrix_run.worker, look)
    record.seconds = before + time.monotonic() - started
    _note(matrix_run, job, record, run, code, time.monotonic() - started)
    matrix_run.watch.show(views(matrix_run.plan, matrix_run.folder, matrix_run.records, None))


def _wait(worker: Worker, look: Callable[[], None]) -> int:
    """The exit code of the worker's job; `look` is called about once a second meanwhile.

    Raises:
        KeyboardInterrupt: Ctrl-C, here or in the job, which has kept its last step then.
    """
    try:
        while (code := worker.poll(1.0)) is None:
            look()
    except KeyboardInterrupt:
        worker.interrupt()
        raise
    if code == INTERRUPTED_CODE:
        raise KeyboardInterrupt
    return code


def _run_references(matrix_run: _MatrixRun) -> None:
    """The rows that recipes are read against, as far as they are not there yet; a failure is a remark."""
    for job in open_references(
        matrix_run.plan, matrix_run.folder, [*matrix_run.dev, *matrix_run.final], matrix_run.look_again
    ):
        logger.info(f"reference {job.name}")
        log = matrix_run.folder.log(f"reference-{Path(job.out).name}")
        matrix_run.worker.start(job, log)
        code = _wait(matrix_run.worker, lambda: None)
        if code:
            logger.info(f"reference {job.name} failed: {explain_code(code, log)}")


def _begin(matrix_run: _MatrixRun, cell: Cell) -> Record:
    run = start_run(matrix_run.plan.recipe(cell), matrix_run.folder.runs)
    record = Record(
        cell.variant, cell.rate, cell.seed, str(run.path.relative_to(matrix_run.folder.path)), search=cell.search
    )
    matrix_run.records[cell.key] = record
    matrix_run.folder.write(cell.key, record)
    return record


def _cell_job(matrix_run: _MatrixRun, job: Job, run: RunFolder) -> CellJob:
    matrix = matrix_run.plan.matrix
    control = _stop_control(matrix_run, job) if matrix.stop else None
    return CellJob(
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


def _stop_control(matrix_run: _MatrixRun, job: Job) -> str | None:
    """Run folder of the control's chosen cell, where the stop rule applies: in the grid, and not to controls.

    Later seeds of a recipe are never stopped: a table that lost a recipe's worst seeds would flatter it.
    """
    plan = matrix_run.plan
    if job.cell.variant in plan.controls.values() or job.cell not in plan.grid(job.cell.variant):
        return None
    cell = best_of_grid(plan, plan.controls[job.cell.variant], matrix_run.records)
    return None if cell is None else str(matrix_run.folder.path / matrix_run.records[cell.key].run)


def _note(matrix_run: _MatrixRun, job: Job, record: Record, run: RunFolder, code: int, seconds: float) -> None:
    """Keep how a job ended."""
    record.jobs.append([_key_of(job), seconds])
    if code == 0:
        record.dev = fmean(_score(run, path, matrix_run.plan.matrix.metric) for path in matrix_run.dev)
        record.status = "done" if job.final else "trained"
    elif code == STOPPED_CODE:
        record.status, record.reason = "stopped", str(run.events(STOPPED)[-1]["reason"])
        if record.search:  # trained to its end
            record.dev = fmean(_score(run, path, matrix_run.plan.matrix.metric) for path in matrix_run.dev)
    else:
        record.status, record.reason = "failed", explain_code(code, matrix_run.folder.log(job.cell.key))
    matrix_run.folder.write(job.cell.key, record)


def _score(run: RunFolder, suite: Path, metric: str) -> float:
    file = run.evaluation(TRAINED, load_suite(suite).name) / METRICS_FILE
    return float(json.loads(file.read_text(encoding="utf-8"))["mean"][metric])


def views(plan: Plan, folder: MatrixFolder, records: dict[str, Record], running: Job | None) -> list[View]:
    """How every known cell stands, in the plan's order."""
    cells = {cell.key: cell for variant in plan.variants for cell in plan.grid(variant)}
    cells |= {job.cell.key: job.cell for job in open_jobs(plan, records)}
    for key, record in records.items():
        cells.setdefault(key, record.cell)
    found = []
    for key, cell in cells.items():
        known = records.get(key)
        if known is None:
            found.append(View(cell, "waiting"))
            continue
        now = running is not None and running.cell.key == key
        state = (
            (running.why if running and now else "interrupted") if known.status == "running" or now else known.status
        )
        step = last_step(folder.path / known.run) if now else {}
        found.append(
            View(
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


def last_step(run: Path) -> dict[str, Any]:
    """The last step event of a run, read from the end of its events; empty where there is none."""
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
                continue  # being written, or cut by where the tail begins
    return {}
