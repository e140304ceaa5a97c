"""A training that is started again by a machine, not a person, goes on with the run that its first attempt began.

torchrun with `--max-restarts` starts all processes again when one has died, by the same command. Schedulers (Slurm,
SkyPilot) start a whole job again. Both run `train RECIPE`, which would begin another run: the manifest of the first one
says which job began it. This module imports no torch, so that a job that was stopped ends at once.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma4vec.errors import Interrupted
from gemma4vec.ledger.run_folder import RunFolder, list_runs
from gemma4vec.machine.memory import torchrun_count
from gemma4vec.reading.names import check_name
from gemma4vec.training.processes.stop_signals import STOPPING_VARIABLE, tell_torchrun

# Fields of the manifest.
JOB, STOPPED_BY = "job", "stopped_by"


@dataclass(frozen=True)
class Job:
    """What may start a training again.

    Attributes:
        name: unique where a person or scheduler gave it.
        attempt: number of restarts by torchrun.
        agent: host, process id and start time of the torchrun process; None where a name was given. A torchrun without
            an id of its own has one only by its process.
    """

    name: str
    attempt: int
    agent: tuple[str, int, float] | None = None

    def manifest_fields(self) -> dict[str, Any]:
        """What the manifest of a new run says of its job."""
        return {JOB: {"name": self.name, "agent": list(self.agent) if self.agent else None}}

    def find_run(self, home: Path) -> RunFolder | None:
        """Return the newest run below `home` that this job began; None: there is none."""
        for run in reversed(list_runs(home)):
            noted = run.manifest.get(JOB)
            if isinstance(noted, dict) and noted.get("name") == self.name and self._may_be(noted.get("agent")):
                return run
        return None

    def _may_be(self, agent: object) -> bool:
        """Whether the noted torchrun process can be ours: the same one, or another machine's after a restart.

        So a first attempt begins a new run, also where an earlier torchrun had the same id.
        """
        if self.agent is None or not isinstance(agent, list) or len(agent) != 3:
            return self.agent is None and agent is None
        return tuple(agent) == self.agent or (self.attempt > 0 and agent[0] != self.agent[0])


def current_job(name: str | None) -> Job | None:
    """The job of this process: the one that a person named, or torchrun's; None: nothing starts it again.

    Raises:
        InputError: the name cannot be one.
    """
    attempt = torchrun_count("TORCHELASTIC_RESTART_COUNT", 0)
    if name is not None:
        return Job(check_name(name, "--job"), attempt)
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch is None or torchrun_count("TORCHELASTIC_MAX_RESTARTS", 0) == 0:
        return None
    import psutil

    parent = psutil.Process(os.getppid())
    return Job(f"torchrun {launch}"[:100], attempt, (socket.gethostname(), parent.pid, parent.create_time()))


def check_not_stopped(run: RunFolder | None = None) -> None:
    """End a process that torchrun has started again although a signal has stopped the training.

    torchrun counts every exit code but 0 as a failure that a restart may help.

    Args:
        run: the run that would go on.

    Raises:
        Interrupted: this attempt must not train.
    """
    if os.environ.get(STOPPING_VARIABLE):
        raise Interrupted("torchrun was asked to stop", agreed=True)
    if run is not None and torchrun_count("TORCHELASTIC_RESTART_COUNT", 0) > 0:
        reason = run.manifest.get(STOPPED_BY)
        if reason is not None:
            tell_torchrun()
            raise Interrupted(str(reason), agreed=True)
