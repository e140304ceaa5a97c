"""Where the processes of one attempt find each other: a part of torchrun's store that no earlier attempt has used.

torchrun keeps one store for all attempts (`--max-restarts`), and its count of restarts may differ between machines.
gloo would read addresses of dead processes there, and wait for them for hours. So the first process chooses a name, and
welcomes each of the others by a number that only a process of this attempt can have written.
"""

import os
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

from gemma4vec.errors import WorkError
from gemma4vec.machine.memory import torchrun_count

# Machines of a cluster may start minutes apart.
PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.02


def connect(*, again: bool = False) -> dist.Store:
    """Connect to the store at MASTER_ADDR and MASTER_PORT; without torchrun the first process serves it.

    Args:
        again: whether this process has a connection already, and wants another one.

    Raises:
        KeyError, ValueError: the variables are missing or wrong.
        RuntimeError: nobody answers there.
    """
    serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and torchrun_count("RANK", 0) == 0 and not again
    return dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=serves,
        wait_for_workers=False,
        timeout=timedelta(seconds=PATIENCE_SECONDS),
    )


def meet(store: dist.Store, rank: int, size: int, patience: float = PATIENCE_SECONDS) -> str:
    """Return the name of this attempt, the same in all its processes and in no other attempt's.

    Raises:
        WorkError: not all processes have come within `patience` seconds.
    """
    own, last = secrets.token_hex(8), time.monotonic() + patience
    if rank > 0:
        store.set(f"hello/{rank}", own)
        _wait(store, f"welcome/{own}", last)
        name = store.get(f"welcome/{own}").decode()
        store.set(f"here/{name}/{rank}", "")
        return name
    missing, welcomed = set(range(1, size)), set[str]()
    while missing:
        for other in sorted(missing):
            # A greeting may be one of a dead attempt: the process of this one writes another over it.
            if store.check([f"hello/{other}"]):
                greeting = store.get(f"hello/{other}").decode()
                if greeting not in welcomed:
                    welcomed.add(greeting)
                    store.set(f"welcome/{greeting}", own)
            if store.check([f"here/{own}/{other}"]):
                missing.discard(other)
        if missing and time.monotonic() > last:
            raise _missing(f"{', '.join(map(str, sorted(missing)))} did not come", patience)
        time.sleep(_POLL_SECONDS)
    return own


def _wait(store: dist.Store, key: str, last: float) -> None:
    while not store.check([key]):
        if time.monotonic() > last:
            raise _missing("0 did not answer", PATIENCE_SECONDS)
        time.sleep(_POLL_SECONDS)


def _missing(who: str, patience: float) -> WorkError:
    return WorkError(f"of the processes that train together, {who} within {patience:.0f} seconds; see their output")
