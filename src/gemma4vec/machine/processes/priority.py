"""Lowest scheduling priority, for work in the background."""

import contextlib
import os
from pathlib import Path

LOWEST = 19
_AUTOGROUP = Path("/proc/self/autogroup")


def lower_priority(autogroup: Path = _AUTOGROUP) -> None:
    """Give this process, and the threads that it will start, the lowest priority that the system has.

    On Linux that is SCHED_IDLE: such a process gets a core when nobody else wants it, and about 0.3% of one otherwise.
    Where the kernel shares cores among sessions first (autogroup), a process in a session of its own would get a fair
    share whatever its niceness, so its session is made nice too. Only the leader of a session does that: any other
    process would slow down whatever else runs there, such as the terminal of the person who started it. What the system
    does not allow is left as it is.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST)  # not os.nice, which adds to what the process has
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getsid(0) != os.getpid():
        return
    with contextlib.suppress(OSError):
        if autogroup.exists():
            autogroup.write_text(str(LOWEST), encoding="ascii")
