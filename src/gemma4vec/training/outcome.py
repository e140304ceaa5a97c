"""What a run's manifest and the ledger say of how it stands: started, finished, interrupted or failed."""

import contextlib
from collections.abc import Iterator
from typing import Any

from gemma4vec.errors import Gemma4VecError, Interrupted
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.training.engine.distributed import FollowedRun
from gemma4vec.training.engine.made_from import ChangedInputError
from gemma4vec.training.job import STOPPED_BY

STARTED, FINISHED, INTERRUPTED, FAILED = "started", "finished", "interrupted", "failed"


@contextlib.contextmanager
def record_outcome(run: RunFolder) -> Iterator[None]:
    """Record in the manifest and in the ledger how the block ended: finished, interrupted or failed.

    Raises:
        InputError: another process trains this run.
    """
    with run.hold():
        yield from _record_status(run)


def _record_status(run: RunFolder) -> Iterator[None]:
    try:
        yield
    except ChangedInputError:
        raise  # nothing was done: the run is as it was, and goes on when its inputs are back
    except BaseException as error:
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        stopped = {STOPPED_BY: str(error)} if isinstance(error, Interrupted) and error.agreed else {}
        record_end(run, status, f"{type(error).__name__}: {error}", **stopped)
        raise
    run.update_manifest(status=FINISHED)
    _record(run)


def record_end(run: RunFolder, status: str, error: str, **fields: Any) -> None:
    """Record that a run ended before its time, and why; `fields` are for the manifest."""
    with contextlib.suppress(Gemma4VecError):  # a full disk must not hide the error itself
        run.event(status, error=error)
        run.update_manifest(status=status, **fields)
        _record(run)


def note_that_it_goes_on(run: RunFolder) -> None:
    """Record that a run which was interrupted or had failed trains again; called when its inputs have been checked."""
    if run.manifest.get("status") in (INTERRUPTED, FAILED):
        run.update_manifest(status=STARTED)
        _record(run)


def _record(run: RunFolder) -> None:
    if not isinstance(run, FollowedRun):
        record_run(run)
