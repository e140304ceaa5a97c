"""Jobs of plans and matrices at whose chosen moment a signal comes: functions for the fork server.

`choose` says which, by variables of the environment. The job goes on when the signal has reached it, so that no test
depends on which process is faster.
"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma4vec.pipeline.matrix.cell import CellSpec, run_cell
from gemma4vec.pipeline.plan import work
from gemma4vec.pipeline.plan.job_spec import JobSpec
from gemma4vec.training.tasks.contrastive import ContrastTask


def choose(patch: pytest.MonkeyPatch, moment: str, number: signal.Signals, reached: str) -> None:
    """Let the jobs of a fork server that starts from now on be stopped once.

    Args:
        moment: a key of `MOMENTS`.
        reached: which processes get the signal: `command` (this one), `server` and `job`.
    """
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))
    choice = {"moment": moment, "number": int(number), "reached": reached.split(), "command": os.getpid()}
    patch.setenv("GEMMA4VEC_TEST_STOP", json.dumps(choice))


def _chosen() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(os.environ["GEMMA4VEC_TEST_STOP"])
    return found


def run_stopped_job(spec: JobSpec) -> None:
    """A plan's job."""
    MOMENTS[_chosen()["moment"]](_stop)
    work.run_job(spec)


def run_stopped_cell(spec: CellSpec) -> None:
    """A matrix's cell."""
    MOMENTS[_chosen()["moment"]](_stop)
    run_cell(spec)


def _stop() -> None:
    """Signal the processes, and wait until this one has been told."""
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling)
    chosen = _chosen()
    known = {"command": chosen["command"], "server": os.getppid(), "job": os.getpid()}
    for name in chosen["reached"]:
        os.kill(known[name], chosen["number"])
    os.read(told, 1)
    signal.set_wakeup_fd(-1)


def _third(owner: Any, name: str, stop: Callable[[], None], *, after: bool) -> None:
    real, calls = getattr(owner, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3 and not after:
            stop()
        found = real(*args, **kwargs)
        if calls == 3 and after:
            stop()
        return found

    setattr(owner, name, counted)


def _before_scores(stop: Callable[[], None]) -> None:
    real = work.load_suite

    def loads(*args: Any) -> Any:
        stop()
        return real(*args)

    work.load_suite = loads  # type: ignore[assignment]


MOMENTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "loss": lambda stop: _third(ContrastTask, "loss", stop, after=False),
    "between update and copy": lambda stop: _third(torch.optim.AdamW, "step", stop, after=True),
    "scoring": _before_scores,
}
