"""Each process of a training sees within two minutes that another one is gone, whatever it is waiting for.

A process that dies closes its connections, and gloo notices at once. A machine that loses its power or its network
closes nothing: the others would wait for as long as a collective may take, which is hours while the first process
evaluates. So each process counts up a number in the store that torchrun keeps, and watches the number of the next one.
The first to see a number stand still says so in the store; everybody reads that and ends. Slow steps do no harm, since
a thread counts. A process that waits inside a collective cannot be woken by an exception, so it is ended from its
thread.
"""

import atexit
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import torch.distributed as dist

from gemma4vec.errors import InputError, WorkError

logger = logging.getLogger(__name__)
# Seconds without a sign of life; with the time that the news takes, the others end within two minutes.
PATIENCE = 90.0
PATIENCE_VARIABLE = "GEMMA4VEC_PATIENCE_SECONDS"
_BEATS = 18  # in that time


def patience_seconds() -> float:
    """Seconds without a sign of life after which a process counts as gone.

    Raises:
        InputError: the variable is not a number from 1 to 3600.
    """
    text = os.environ.get(PATIENCE_VARIABLE) or str(PATIENCE)
    try:
        seconds = float(text) if len(text) < 20 else 0.0
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise InputError(f"{PATIENCE_VARIABLE}={text[:40]} is not a number of seconds from 1 to 3600; unset it")
    return seconds


class Heartbeat:
    """Signs of life of this process, and the watch over the next one.

    Args:
        store: all processes share it, for heartbeats alone.
        rank: of this process.
        size: number of processes.
        patience: seconds without a sign of life after which a process counts as gone.
        end: called with a sentence when one is gone; the default ends this process with the exit code of a `WorkError`.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        size: int,
        patience: float = PATIENCE,
        end: Callable[[str], None] | None = None,
    ):
        self._store, self._rank, self._watched = store, rank, (rank + 1) % size
        self._patience, self._interval = patience, patience / _BEATS
        self._end = end or self._end_process
        self.before_end: Callable[[str], None] | None = None
        self._stopped = threading.Event()
        self._who = f"process {self._watched}"
        self._signs = self._answers = 0  # of the watched one, and of the store
        self._lost: str | None = None
        self._threads = [
            threading.Thread(target=work, name=f"heartbeat {work.__name__}", daemon=True)
            for work in (self._talk, self._judge)
        ]

    def start(self) -> None:
        """Begin to count and to watch."""
        self._store.set(f"host/{self._rank}", socket.gethostname())
        for thread in self._threads:
            thread.start()
        atexit.register(self.stop)  # threads that outlive the interpreter may crash in the store's code

    def stop(self) -> None:
        """Stop both. The others must not watch this process any more: they stop at the same time."""
        self._stopped.set()
        atexit.unregister(self.stop)
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=2 * self._interval)

    def _talk(self) -> None:
        """Count, and read the watched number. A store that does not answer may hold this thread for ever."""
        seen, known = 0, False
        while not self._stopped.wait(self._interval):
            try:
                if self._lost is not None:
                    self._store.set("lost", self._lost)
                    return
                self._store.add(f"beat/{self._rank}", 1)
                if self._store.check(["lost"]):
                    self._lost = self._store.get("lost").decode("utf-8", "replace")
                    return
                number = self._store.add(f"beat/{self._watched}", 0)
                self._answers += 1
                if number != seen:
                    seen = number
                    self._signs += 1
                if not known and self._store.check([f"host/{self._watched}"]):
                    known = True
                    host = self._store.get(f"host/{self._watched}").decode("utf-8", "replace")
                    self._who = f"process {self._watched} on {host}"
            except RuntimeError as error:  # the store's machine is gone, or is about to go: `_judge` decides
                logger.debug(f"the store of the processes does not answer: {error}")

    def _judge(self) -> None:
        """End this process when the watched one is gone. Time in which this process itself stood still does not count.

        A job that is suspended as a whole, as Slurm does, must not find everybody else gone when it continues.
        """
        silent, before, signs, answers = 0.0, time.monotonic(), 0, 0
        while not self._stopped.wait(self._interval):
            now = time.monotonic()
            silent, before = silent + min(now - before, 2 * self._interval), now
            if self._signs != signs:
                silent, signs, answers = 0.0, self._signs, self._answers
            if self._lost is None and silent > self._patience:
                # Without the store nobody can say who else is gone.
                who = self._who if self._answers - answers > 1 else "the machine of the first process"
                self._lost = f"{who} gave no sign of life for {self._patience:.0f} seconds"
                self._stopped.wait(2 * self._interval)  # in which `_talk` tells the others
            if self._lost is not None and not self._stopped.is_set():
                self._end(self._lost)
                return

    def _end_process(self, reason: str) -> None:
        try:
            if self.before_end is not None:
                self.before_end(reason)
        finally:
            # The main thread may wait inside a collective, where no exception reaches it.
            print(f"error: {reason}; this process ends too", file=sys.stderr, flush=True)
            os._exit(WorkError.exit_code)
