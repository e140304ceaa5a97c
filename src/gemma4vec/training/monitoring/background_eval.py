"""Evaluation in the background: a process of low priority evaluates weight snapshots of a training as they appear.

The trainer starts `gemma4vec eval RUN --checkpoints --follow` and continues; people may also start it themselves. The
two processes share only the run folder: a snapshot that exists is complete, and a result that exists is not computed
again. So either process may be killed and started again, in any order.
"""

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.schema import Evaluation, Recipe
from gemma4vec.training.monitoring.dev_suite import dev_folder, open_dev_suite
from gemma4vec.training.monitoring.weight_snapshots import WeightSnapshot, kept_checkpoints

logger = logging.getLogger(__name__)

LOG, LOCK, SUITES = "beside.log", ".beside.lock", "dev_suites"
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 30.0  # without a trainer; a trainer that is starting needs less to load its libraries
# torchrun's variables; removed because the background evaluator is not a rank.
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def note_dev_suite(run: RunFolder, number: int, settings: Evaluation, dev: Path | None) -> None:
    """Record in the manifest the suite on which a stage's checkpoints are evaluated."""
    folder = dev_folder(settings, dev)
    if folder is not None:
        known = run.manifest.get(SUITES)
        noted = dict(known) if isinstance(known, dict) else {}  # a damaged note is replaced
        noted[str(number)] = {
            "folder": str(folder.resolve()),
            "max_queries": settings.max_queries,
            "max_documents": settings.max_documents,
        }
        run.update_manifest(**{SUITES: noted})


def dev_suite_of(run: RunFolder, number: int) -> RetrievalSuite:
    """Return the suite of a stage's evaluations, as its training recorded it.

    Raises:
        InputError: it recorded none, the suite is final, or its files are gone.
    """
    noted: dict[str, Any] | None = (run.manifest.get(SUITES) or {}).get(str(number))
    if noted is None:
        raise InputError(f"{run.path} names no dev suite for stage {number}; name one with --suite")
    key = f"stages.{number}.evaluation.background"
    try:
        folder, sizes = Path(noted["folder"]), (noted["max_queries"], noted["max_documents"])
        if not all(size is None or (type(size) is int and size > 0) for size in sizes):
            raise ValueError("a size that is no whole number")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.path}: its note of the dev suite is damaged ({error!r}); name it with --suite"
        ) from error
    return open_dev_suite(folder, *sizes, key)


def check_background(run: RunFolder, number: int) -> None:
    """Refuse what the background process would refuse: its own error would only be in a log file.

    Raises:
        InputError: one line that names the recipe's key.
    """
    key = f"stages.{number}.evaluation"
    if str(number) not in (run.manifest.get(SUITES) or {}):
        raise InputError(f"{key}.background: there is no dev suite to evaluate on; name one as {key}.suite")
    dev_suite_of(run, number)


@contextlib.contextmanager
def only_one(run: RunFolder) -> Iterator[None]:
    """Hold the lock of this run's background evaluation; wait while another process holds it."""
    with (run.path / LOCK).open("w") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process evaluates the checkpoints of this run; this one continues when it ends")
            fcntl.lockf(stream, fcntl.LOCK_EX)
        yield


def follow(
    run: RunFolder,
    recipe: Recipe,
    *,
    poll: float = POLL_SECONDS,
    patience: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[WeightSnapshot]:
    """Yield each weight snapshot of a run once, as it appears; of a finished run, also its last and best weights.

    Ends as well when no process has trained the run for `patience` seconds, because it was killed or interrupted.
    """
    yielded: set[tuple[int, int]] = set()
    alone = 0.0
    while True:
        finished = run.manifest.get("status") == "finished"  # read first: all snapshots of a finished run exist
        alone = 0.0 if run.is_held() else alone + poll
        for one in kept_checkpoints(run, recipe, whole=finished):
            if (one.stage, one.step) not in yielded:
                yielded.add((one.stage, one.step))
                yield one
        if finished:
            return
        if alone > patience:
            logger.info(f"nobody trains {run.path}; repeat this command when its training continues")
            return
        sleep(poll)


class BackgroundEvaluation:
    """The background process that a trainer has started."""

    def __init__(self, run: RunFolder):
        self.run = run
        command = [sys.executable, "-m", "gemma4vec", "eval", str(run.path.resolve()), "--checkpoints", "--follow"]
        environment = {name: value for name, value in os.environ.items() if name not in _TORCHRUN}
        with (run.path / LOG).open("ab") as log:
            # A new session, so that a signal to the trainer's process group does not kill it.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        run.event("beside", process=self.process.pid)
        logger.info(f"weight snapshots are evaluated in the background, at low priority; the log is {run.path / LOG}")

    def end(self) -> None:
        """Terminate the process after Ctrl-C in the training. `--resume` evaluates the remaining snapshots."""
        self.process.terminate()

    def wait(self) -> None:
        """Wait for the last results. Ctrl-C stops the waiting, not the process."""
        if self.process.poll() is None:
            logger.info("waiting for the background evaluation (Ctrl-C stops waiting; the evaluation continues)")
        try:
            code = self.process.wait()
        except KeyboardInterrupt:
            logger.info(f"the background evaluation continues; its log is {self.run.path / LOG}")
            return
        if code:
            lines = (self.run.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            why = f"signal {-code}" if code < 0 else lines[-1] if lines else f"exit code {code}"
            logger.warning(
                f"warning: background evaluation failed ({why}); continue it with: "
                f"gemma4vec eval {self.run.path} --checkpoints --follow"
            )
