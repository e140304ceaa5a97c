"""Slurm: a batch script. Work that reaches its time limit saves, and the job goes back into the queue.

`--signal=USR1@120` signals all processes of the job's steps, not the batch script. `--requeue` only permits that a job
is queued again, after a machine failed or another job took its place; Slurm does not look at exit codes for that. So
the script itself asks for it (`scontrol requeue`) when the work ends with 75. The job's id stays the same, and with it
the run (`train --job`); parts of an encoding keep their finished shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma4vec.errors import InputError, Interrupted
from gemma4vec.launch.work import PORT, Processes, Shell, Work, check_part, check_value, meeting_point, shell_line

SECONDS_TO_SAVE = 120
# A training that takes no step before its limit, or an encoding that ends no shard, must end some day.
MOST_REQUEUES = 100
# torchrun reads its option --rdzv-conf there, and srun alone knows which machine a process is on.
_ON_EACH = 'export PET_RDZV_CONF="is_host=$((SLURM_NODEID == 0))"; exec "$@"'
_PART = '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'  # the id of one part may be that of the whole array, too


def _requeue(job: str) -> str:
    return f"""code=$?
# {Interrupted.exit_code}: stopped by a signal, what was finished is kept. Other codes: finished, or failed for good.
if [ "$code" -eq {Interrupted.exit_code} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_REQUEUES} ]; then
    scontrol requeue {job}
fi
exit "$code"
"""


@dataclass(frozen=True)
class SlurmJob:
    """What the job asks Slurm for.

    Attributes:
        nodes: machines; for an encoding, parts, each a job of its own in an array.
        gpus: GPUs of each machine, such as `4` or `h100:4`.
        time: the limit, such as `24:00:00`; a training may take several times that.
        more: further options as `sbatch` takes them, such as `--qos=high`.
    """

    nodes: int = 1
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    more: Sequence[str] = ()


def slurm_text(work: Work, processes: Processes, job: SlurmJob, workdir: str, *, port: int = PORT) -> str:
    """Return a batch script for `sbatch`.

    Raises:
        InputError: an option has a value that no such option has, or a part of an encoding several processes.
    """
    check_part(work, processes)
    return "".join(
        [
            "#!/bin/bash\n",
            *(f"#SBATCH {option}\n" for option in _options(work, job)),
            "\n",
            f"{shell_line(['cd', workdir])} || exit 2\n",
            _encode(work, processes, job) if work.encodes else _train(work, processes, port),
        ]
    )


def _options(work: Work, job: SlurmJob) -> list[str]:
    asked = [
        ("--gpus-per-node", job.gpus),
        ("--cpus-per-task", str(job.cpus) if job.cpus is not None else None),
        ("--mem", job.memory),
        ("--time", job.time),
        ("--partition", job.partition),
        ("--account", job.account),
    ]
    options = [f"--job-name={work.name}", "--ntasks-per-node=1", "--requeue", "--open-mode=append"]
    options.append(f"--signal=USR1@{SECONDS_TO_SAVE}")
    if work.encodes:
        options += ["--nodes=1", f"--array=1-{job.nodes}", f"--output={work.name}-%A_%a.log"]
    else:
        options += [f"--nodes={job.nodes}", f"--output={work.name}-%j.log"]
    options += [f"{name}={check_value(name, value)}" for name, value in asked if value is not None]
    for option in job.more:
        name, _, value = option.partition("=")
        if not (name.startswith("--") and name[2:].replace("-", "").isalnum() and name.isascii()):
            raise InputError(f"--sbatch {option[:60]!r} is no option of sbatch; write it as --sbatch=--qos=high")
        options.append(f"{name}={check_value(name, value)}" if value else name)
    return options


def _train(work: Work, processes: Processes, port: int) -> str:
    name = Shell('"slurm-$SLURM_JOB_ID"')
    attempt = Shell('"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"')
    meeting = meeting_point(Shell('"$SLURM_NNODES"'), attempt, Shell(f'"${{head:-$first}}:{port}"'))
    words = ["srun", "--kill-on-bad-exit=0", "bash", "-c", _ON_EACH, "bash"]
    words += processes.run(*processes.torchrun(*meeting), *work.train(processes.out, name))
    return f"""# All machines meet at the first one. Its name in Slurm need not be one in the network.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head=$(scontrol show node "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
{shell_line(words)}
{_requeue('"$SLURM_JOB_ID"')}"""


def _encode(work: Work, processes: Processes, job: SlurmJob) -> str:
    part = Shell(f'"$SLURM_ARRAY_TASK_ID/{job.nodes}"')
    return f"""# Shards that are done are not encoded again.
{shell_line(["srun", *processes.run(*work.encode("--shard", part))])}
{_requeue(_PART)}"""
