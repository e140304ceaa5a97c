"""SkyPilot: a task as YAML, for `sky jobs launch`. SkyPilot is never imported: it needs other versions of libraries.

A managed job that ends with 75 is started again (`recover_on_exit_codes`), as is one whose machines were taken away.
Its SKYPILOT_TASK_ID stays the same, and with it the run (`train --job`).
"""

import posixpath
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from gemma4vec.errors import InputError, Interrupted
from gemma4vec.launch.work import PORT, Processes, Shell, Work, check_part, check_value, meeting_point, shell_line


@dataclass(frozen=True)
class SkyTask:
    """What the task asks SkyPilot for.

    Attributes:
        nodes: machines; for an encoding each one does one part.
        accelerators: of each machine, such as `H100:8`.
        setup: shell lines that install gemma4vec on a new machine.
        volume: a SkyPilot volume that all machines share and that outlives them, mounted at the output folder.
        workdir: the local folder that is copied to the machines.
    """

    nodes: int = 1
    accelerators: str | None = None
    spot: bool = False
    setup: str = "pip install gemma4vec"
    volume: str | None = None
    workdir: str = "."


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


def skypilot_text(work: Work, processes: Processes, task: SkyTask, *, port: int = PORT) -> str:
    """Return a task as YAML.

    Raises:
        InputError: no output folder, one that is relative or not on the volume, a value with odd characters, or
            several processes for a part of an encoding.
    """
    check_part(work, processes)
    if processes.out is None and not work.encodes:
        raise InputError("--out is missing: name a folder on a volume that all machines share and that outlives them")
    if processes.out is not None and not processes.out.startswith("/"):
        raise InputError(f"--out {processes.out}: give the absolute path on the machines, such as /runs")
    if work.encodes:
        _check_vectors(work.words[2], processes.out)
    recovery = {"max_restarts_on_errors": processes.max_restarts, "recover_on_exit_codes": [Interrupted.exit_code]}
    resources: dict[str, Any] = {"job_recovery": recovery}
    if task.accelerators is not None:
        resources["accelerators"] = check_value("--gpus", task.accelerators)
    if task.spot:
        resources["use_spot"] = True
    made: dict[str, Any] = {"name": work.name, "num_nodes": task.nodes, "workdir": task.workdir, "resources": resources}
    if task.volume is not None:
        if processes.out is None:
            raise InputError("--volume needs --out: the folder at which it is mounted")
        made["volumes"] = {processes.out: check_value("--volume", task.volume)}
    made["setup"] = f"set -e\n{task.setup}\n"
    made["run"] = _encode(work, processes) if work.encodes else _train(work, processes, port)
    return yaml.dump(made, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _train(work: Work, processes: Processes, port: int) -> str:
    job = Shell('"$SKYPILOT_TASK_ID"')
    meeting = meeting_point(Shell('"$SKYPILOT_NUM_NODES"'), job, Shell(f'"$head:{port}"'))
    own = ["--rdzv-conf", Shell('"is_host=$is_host"')]
    words = ["exec", *processes.run(*processes.torchrun(*meeting, *own), *work.train(processes.out, job))]
    return f"""head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
is_host=$([ "$SKYPILOT_NODE_RANK" -eq 0 ] && echo 1 || echo 0)
{shell_line(words)}
"""


def _encode(work: Work, processes: Processes) -> str:
    part = Shell('"$((SKYPILOT_NODE_RANK + 1))/$SKYPILOT_NUM_NODES"')
    return f"{shell_line(['exec', *processes.run(*work.encode('--shard', part))])}\n"


def _check_vectors(folder: str, mounted: str | None) -> None:
    """Refuse an output of `encode` on a machine's own disk: each part would be alone there, and gone with the machine.

    A relative path would be one in the machine's copy of --workdir, which SkyPilot does not copy back.
    """
    if not folder.startswith("/"):
        raise InputError(
            f"encode writes to {folder}: give the absolute path of a folder that all machines share, such as /runs/out"
        )
    if mounted is not None and not PurePosixPath(posixpath.normpath(folder)).is_relative_to(mounted):
        raise InputError(f"encode writes to {folder}, which is not in --out {mounted}; name a folder in that")
