"""Machines that ssh reaches: a shell script with one line a host. The first host is the meeting point."""

from collections.abc import Sequence

from gemma4vec.errors import InputError
from gemma4vec.launch.work import PORT, Processes, Work, check_host, check_part, meeting_point, shell_line

SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=30"]
_HEAD = """#!/bin/bash
# {what} on {count} hosts, which share the folder {workdir} and where the output goes.
# After it was stopped, the same script goes on where it was.
# The hosts' stdin is this loop. When it ends, or their connection, they save and end.
coproc {{ trap '' INT; while kill -0 $$ 2>/dev/null; do sleep 1 >/dev/null; done; }}
keeper=$COPROC_PID
exec 3<&"${{COPROC[0]}}"
trap 'kill "$keeper" 2>/dev/null || exit 130' INT TERM HUP  # the second time nobody waits
pids=()
on() {{
    trap '' INT  # Ctrl-C in a terminal goes to all processes, but only the script answers it
    {ssh} "$@" <&3
    code=$?
    case $code in
        0 | 75 | 130) exit "$code" ;;  # finished, or stopped as it was asked to
        255) echo "error: ssh could not reach $1, or lost it, or its work was killed there{then}" >&2 ;;
        *) echo "error: $1 ended with exit code $code{then}" >&2 ;;
    esac
{stop}    exit "$code"
}}
"""
_STOP = '    kill "$keeper" 2>/dev/null\n'
_TAIL = """code=0
for pid in "${pids[@]}"; do
    # A trapped signal ends a wait early: wait until the process is gone.
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
    wait "$pid"
    last=$?
    # 75 and 130 (stopped) are the answer only where no host failed.
    case $code in 0 | 75 | 130) [ "$last" -eq 0 ] || code=$last ;; esac
done
kill "$keeper" 2>/dev/null
exit "$code"
"""


def ssh_text(
    work: Work,
    processes: Processes,
    hosts: Sequence[str],
    workdir: str,
    name: str,
    *,
    port: int = PORT,
    meeting: str | None = None,
) -> str:
    """Return a bash script that starts `work` on each host and waits for all.

    Args:
        name: of this launch: a second script of the same name goes on with its run.
        workdir: folder that each host goes to first.
        meeting: address of the first host for the others; None: its name for ssh.

    Raises:
        InputError: no hosts, one that ssh would not take, one twice, or several processes for a part.
    """
    check_part(work, processes)
    names = [check_host(host) for host in hosts]
    if not names:
        raise InputError("no hosts; name them with --hosts a,b or --hosts user@a,user@b")
    addresses = [host.rsplit("@", 1)[-1] for host in names]
    if twice := sorted({one for one in addresses if addresses.count(one) > 1}):
        raise InputError(f"--hosts names {twice[0]} twice; --nproc-per-node says how many processes a host has")
    head = check_host(meeting) if meeting is not None else addresses[0]
    lines = []
    for number, host in enumerate(names, start=1):
        if work.encodes:
            words = work.encode("--shard", f"{number}/{len(names)}")
        else:
            there = meeting_point(str(len(names)), name, f"{head}:{port}")
            own = ["--rdzv-conf", f"is_host={int(number == 1)}"]
            words = [*processes.torchrun(*there, *own), *work.train(processes.out, name)]
        # `words` begin with -m MODULE.
        run = shell_line(processes.run("-m", "gemma4vec.launch.attached", *words[1:]))
        remote = f"{shell_line(['cd', workdir])} && exec {run}"
        lines.append(f"{shell_line(['on', host, remote])} & pids+=($!)\n")
    what = f"{'Encoding' if work.encodes else 'Training'} {work.name}"
    then = "; its part is missing" if work.encodes else "; the other hosts save and end"
    stop = "" if work.encodes else _STOP
    head_lines = _HEAD.format(what=what, count=len(names), workdir=workdir, ssh=shell_line(SSH), then=then, stop=stop)
    return head_lines + "".join(lines) + _TAIL
