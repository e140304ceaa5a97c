"""A plan's job that is killed in the middle of a decoder's training: a function for the fork server."""

import os
import signal
from typing import Any

from gemma4vec.pipeline.plan.job_spec import JobSpec
from gemma4vec.pipeline.plan.work import run_job
from gemma4vec.training.tasks.vector_to_text import VectorToTextTask


def run_and_die(spec: JobSpec) -> None:
    """Run the job until its third loss, then `kill -9` its process."""
    real, calls = VectorToTextTask.loss, 0

    def loss(self: VectorToTextTask, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments)

    VectorToTextTask.loss = loss  # type: ignore[method-assign]
    run_job(spec)
