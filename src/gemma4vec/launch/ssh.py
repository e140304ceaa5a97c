"""Machines that ssh reaches: a shell script with one line a host. The first host is the meeting point."""

from collections.abc import Sequence

from gemma4vec.errors import InputError
from gemma4vec.launch.work import PORT, Processes, Work, check_host, meeting_point, shell_line

# -tt: a host whose connection ends gets SIGHUP, which stops its processes at a checkpoint.
SSH = ["ssh", "-n", "-tt", "-o", "BatchMode=yes"]
_HEAD = """#!/bin/bash
# {what} on {count} hosts, which share the folder {workdir} and where the output goes.
# After it was stopped, the same script goes on where it was.
pids=()
trap 'kill "${{pids[@]}}" 2>/dev/null' INT TERM HUP
"""
_TAIL = """code=0
for pid in "${pids[@]}"; do
    # A trapped signal ends a wait early: wait until the process is gone.
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
    wait "$pid" || last=$?
    if [ "${last:-0}" -gt "$code" ]; then code=$last; fi
done
exit "$code"
"""


def ssh_text(
    work: Work, processes: Processes, hosts: Sequence[str], workdir: str, name: str, *, port: int = PORT
) -> str:
    """Return a bash script that starts `work` on each host and waits for all.

    Args:
        name: of this launch: a second script of the same name goes on with its run.
        workdir: folder that each host goes to first.

    Raises:
        InputError: no hosts, one that ssh would not take, or one twice.
    """
    names = [check_host(host) for host in hosts]
    if not names:
        raise InputError("no hosts; name them with --hosts a,b or --hosts user@a,user@b")
    addresses = [host.rsplit("@", 1)[-1] for host in names]
    if twice := sorted({one for one in addresses if addresses.count(one) > 1}):
        raise InputError(f"--hosts names {twice[0]} twice; --nproc-per-node says how many processes a host has")
    lines = []
    for number, (host, address) in enumerate(zip(names, addresses, strict=True), start=1):
        if work.encodes:
            words = [processes.python, *work.encode("--shard", f"{number}/{len(names)}")]
        else:
            meeting = meeting_point(str(len(names)), name, f"{addresses[0]}:{port}")
            is_host = "1" if number == 1 else "0"
            own = ["--rdzv-conf", f"is_host={is_host}", "--local-addr", address]
            words = [*processes.torchrun(*meeting, *own), *work.train(processes.out, name)]
        remote = f"{shell_line(['cd', workdir])} && exec {shell_line(words)}"
        lines.append(f"{shell_line([*SSH, host, remote])} & pids+=($!)\n")
    what = f"{'Encoding' if work.encodes else 'Training'} {work.name}"
    return _HEAD.format(what=what, count=len(names), workdir=workdir) + "".join(lines) + _TAIL
