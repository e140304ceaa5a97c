"""Evaluation beside a training: a process of low priority that evaluates kept weights as they appear.

The trainer starts `gemma4vec eval RUN --checkpoints --follow` and goes on; people may start it themselves. What passes
between the two is the run folder alone: weights that are there are whole, results that are there are not made again. So
either may be killed and started again, in any order.
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

from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.ledger.final_suites import is_final
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.schema import Evaluation, Recipe
from gemma4vec.training.monitoring.weight_snapshots import WeightSnapshot, kept_checkpoints

logger = logging.getLogger(__name__)

LOG, LOCK, SUITES = "beside.log", ".beside.lock", "dev_suites"
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 30.0  # without a trainer; one that is just starting has loaded its libraries by then
# What torchrun tells its processes; the one beside is none of them.
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def note_dev_suite(run: RunFolder, number: int, settings: Evaluation, dev: Path | None) -> None:
    """Write into the manifest which suite a stage's checkpoints are to be evaluated on."""
    folder = Path(settings.suite) if settings.suite else dev
    if folder is not None:
        noted = dict(run.manifest.get(SUITES) or {})
        noted[str(number)] = {
            "folder": str(folder.resolve()),
            "max_queries": settings.max_queries,
            "max_documents": settings.max_documents,
        }
        run.update_manifest(**{SUITES: noted})


def dev_suite_of(run: RunFolder, number: int) -> RetrievalSuite:
    """The suite that a stage's evaluations see, as its training noted it.

    Raises:
        InputError: it noted none, or its files are gone.
    """
    noted: dict[str, Any] | None = (run.manifest.get(SUITES) or {}).get(str(number))
    if noted is None:
        raise InputError(f"{run.path} names no dev suite for stage {number}; say which with --suite")
    return sample_suite(load_suite(Path(noted["folder"])), noted["max_queries"], noted["max_documents"])


def check_beside(run: RunFolder, number: int) -> None:
    """Refuse what the process beside a stage would refuse, where nobody would see it.

    Raises:
        InputError: one line that names the recipe's key.
    """
    key = f"stages.{number}.evaluation"
    if str(number) not in (run.manifest.get(SUITES) or {}):
        raise InputError(f"{key}.background: there is no dev suite to evaluate on; name one as {key}.suite")
    suite = dev_suite_of(run, number)
    if is_final(suite.fingerprint, suite.role):
        raise InputError(f"{key}.background: {suite.name} is a final suite, not for checkpoints; name a dev suite")


@contextlib.contextmanager
def only_one(run: RunFolder) -> Iterator[None]:
    """Wait until no other process evaluates beside this run, and be that one."""
    with (run.path / LOCK).open("w") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process evaluates the checkpoints of this run; this one goes on when that one ends")
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
    """Kept weights of a run as they appear, each once, until it is finished; then also the last and the best.

    Ends too where nobody has trained the run for `patience` seconds: it was killed or interrupted, and the weights that
    it had kept were given.
    """
    given: set[tuple[int, int]] = set()
    alone = 0.0
    while True:
        finished = run.manifest.get("status") == "finished"  # asked first: what it kept is there by then
        alone = 0.0 if run.is_held() else alone + poll
        for one in kept_checkpoints(run, recipe, whole=finished):
            if (one.stage, one.step) not in given:
                given.add((one.stage, one.step))
                yield one
        if finished:
            return
        if alone > patience:
            logger.info(f"nobody trains {run.path}; the same command goes on when somebody does")
            return
        sleep(poll)


class BackgroundEvaluation:
    """The process that a trainer has started."""

    def __init__(self, run: RunFolder):
        self.run = run
        command = [sys.executable, "-m", "gemma4vec", "eval", str(run.path.resolve()), "--checkpoints", "--follow"]
        environment = {name: value for name, value in os.environ.items() if name not in _TORCHRUN}
        with (run.path / LOG).open("ab") as log:
            # In a session of its own, so that what ends the trainer's does not end it.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        run.event("beside", process=self.process.pid)
        logger.info(
            f"evaluation of kept weights goes on beside the training, at low priority; its log is {run.path / LOG}"
        )

    def end(self) -> None:
        """End it, since a person ended the training; what it has not evaluated comes after --resume."""
        self.process.terminate()

    def wait(self) -> None:
        """Wait for the last results. Ctrl-C ends the waiting, not the work."""
        if self.process.poll() is None:
            logger.info("waiting for the evaluation beside (Ctrl-C leaves it to itself)")
        try:
            code = self.process.wait()
        except KeyboardInterrupt:
            logger.info(f"left to itself; its log is {self.run.path / LOG}")
            return
        if code:
            lines = (self.run.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            why = f"signal {-code}" if code < 0 else lines[-1] if lines else f"exit code {code}"
            logger.warning(
                f"warning: the evaluation beside did not end well ({why}); go on with: "
                f"gemma4vec eval {self.run.path} --checkpoints --follow"
            )
