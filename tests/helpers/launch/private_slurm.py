"""A Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd, all their files in one folder."""

import contextlib
import getpass
import os
import re
import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daemons import daemons, find_or_skip, free_ports, until

NODES = ("g4va", "g4vb")
# `low` is preempted by `high`: its jobs get SIGTERM, and after the grace time they are killed and queued again.
SETTINGS = """\
ClusterName=g4v
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=600
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=1,sched_interval=5
KillWait=60
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE GraceTime=300 State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """The cluster's commands; `environment` lets any program find it."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(
            list(words), env=os.environ | self.environment, input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def job(self, number: str, key: str) -> str:
        """A value of `scontrol show job`, such as JobState."""
        found = re.search(rf"\b{key}=(\S+)", self.ask("scontrol", "show", "job", number))
        assert found is not None
        return found[1]

    def start_again(self, number: str) -> None:
        """Start a job that was queued again within seconds: Slurm would wait two minutes.

        Its nodes refuse a job whose new credential is of the same second as the end of the old one.
        """
        until(lambda: self.job(number, "JobState") == "PENDING", f"job {number} waits in the queue")
        self.ask("scontrol", "update", f"JobId={number}", "StartTime=now+3")


@contextlib.contextmanager
def private_slurm(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, and wait until its nodes are idle."""
    munged, slurmctld, slurmd, *_ = find_or_skip("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
    folder.mkdir(mode=0o755)
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().split(".")[0]
    ports = free_ports(1 + len(NODES))
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=500"
        for name, port in zip(NODES, ports[1:], strict=True)
    ]
    settings = folder / "slurm.conf"
    settings.write_text(
        SETTINGS.format(host=host, user=getpass.getuser(), controller=ports[0], folder=folder, nodes="\n".join(nodes))
    )
    cluster = Cluster(folder, {"SLURM_CONF": str(settings)})
    with daemons(folder) as started:
        started.environment = cluster.environment
        socket_file = folder / "munge.socket"
        files = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        started.start("munged", [munged, "--foreground", "--force", f"--socket={socket_file}", *files])
        until(socket_file.exists, "munged listens", 60)
        started.start("slurmctld", [slurmctld, "-D", "-f", str(settings)])
        for name in NODES:
            (folder / f"spool-{name}").mkdir()
            started.start(name, [slurmd, "-D", "-f", str(settings), "-N", name])
        idle = ["sinfo", "-h", "-N", "-p", "low", "-o", "%T"]

        def ready() -> bool:
            done = subprocess.run(idle, env=os.environ | cluster.environment, capture_output=True, text=True)
            return done.stdout.split() == ["idle"] * len(NODES)

        until(ready, "both nodes are idle", 120)
        try:
            yield cluster
        finally:
            subprocess.run(["scancel", "--full", "-u", getpass.getuser()], env=os.environ | cluster.environment)
