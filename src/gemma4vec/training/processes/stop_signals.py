"""SIGTERM and SIGUSR1: the training stops at the next step boundary, with a checkpoint and exit code 75.

Schedulers send them before they take a machine away: Slurm sends SIGUSR1 some time before a job's limit, Kubernetes
SIGTERM before a pod ends. Within a step a signal is only noted, since half a step is not worth saving. Elsewhere
(while the model loads, while it is evaluated) it raises `errors.Interrupted` at once: nothing is lost there. Before the
training has begun (libraries are imported, rows are read), `end_at_signals` ends the process with the same code.

torchrun sends SIGTERM to the processes that are left when one has died, and a process cannot see who sent it. So one
that SIGTERM ends alone says nothing to torchrun, which may start all again; SIGUSR1, or a stop that all processes have
agreed on, is no death, and torchrun is told (`tell_torchrun`).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from gemma4vec.errors import Interrupted

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# `launch.torchrun` sets it when it is asked to stop: processes that are started after that end at once.
STOPPING_VARIABLE = "GEMMA4VEC_STOPPING"
# The id of the process of `launch.torchrun`, for those that it starts, and the signal by which they tell it.
TORCHRUN_VARIABLE = "GEMMA4VEC_TORCHRUN"
TOLD = signal.SIGUSR2


class StopSignals:
    """The signals that ask a training to stop. Without `caught` none ever comes.

    Args:
        how_to_go_on: a command, for the message of a signal that stops at once.

    Attributes:
        name: of the first signal that came, such as `SIGUSR1`; None: none yet. Later ones change nothing.
    """

    def __init__(self, how_to_go_on: str | None = None) -> None:
        self.name: str | None = None
        self._hint = f"; go on with: {how_to_go_on}" if how_to_go_on else ""
        self._noted_only = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals within the block; the handlers before it return afterwards.

        Only a process's main thread can do that: in others nothing changes. A handler that the calling program has set
        itself stays.
        """
        before: dict[signal.Signals, object] = {}
        try:
            if threading.current_thread() is threading.main_thread():
                for one in SIGNALS:
                    current = signal.getsignal(one)
                    if _is_free(current):
                        before[one] = current
                        signal.signal(one, self._handle)
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)  # type: ignore[arg-type]  # what getsignal returned

    @contextmanager
    def noted_only(self) -> Iterator[None]:
        """Only note signals within the block, whose caller asks for `name`."""
        before, self._noted_only = self._noted_only, True
        try:
            yield
        finally:
            self._noted_only = before

    def unless_stopped(self, work: Callable[[], T]) -> T | None:
        """Return what `work` returns; None if a signal came before it or cut it off. For use within `noted_only`."""
        before, self._noted_only = self._noted_only, False
        try:
            if self.name is None:
                return work()
        except Interrupted:
            pass  # `name` says so to the caller
        finally:
            self._noted_only = before
        return None

    def agreed(self, where: str) -> Interrupted:
        """What ends this process after all have agreed to stop. Signals that come from now on change nothing.

        Args:
            where: the end of its message, such as `after step 4`.
        """
        self.name = self.name or "a signal to another process"
        tell_torchrun()
        return Interrupted(f"stopped by {self.name} {where}", agreed=True)

    def interruption(self) -> Interrupted:
        """What ends this process when a signal has stopped the work that it waited for, here or there."""
        self.name = self.name or "a signal to another process"
        return Interrupted(f"stopped by {self.name}{self._hint}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None:
            return
        self.name = signal.Signals(number).name
        if number == signal.SIGUSR1:
            tell_torchrun()
        if not self._noted_only:
            raise self.interruption()


def end_at_signals() -> None:
    """From now on SIGTERM and SIGUSR1 end this process with exit code 75, before and after `StopSignals.caught`.

    A command calls it before it imports anything that takes seconds. Only for work that may simply be started again:
    the process ends where it stands. A signal that comes while a library computes waits for the end of that.
    """
    for one in SIGNALS:
        if _is_free(signal.getsignal(one)):
            signal.signal(one, _End())


class _End:
    """The handler of `end_at_signals`."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a fork of ours: it is ended as it would be without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGUSR1:
            tell_torchrun()
        # An exception may come up inside any library here, and some swallow it.
        os.write(2, f"interrupted: stopped by {signal.Signals(number).name}; start it again\n".encode())
        os._exit(Interrupted.exit_code)


def _is_free(handler: object) -> bool:
    """Whether nobody but us has set it. torchrun's parent may ignore SIGUSR1, and its children inherit that."""
    return handler in (signal.SIG_DFL, signal.SIG_IGN) or isinstance(handler, _End)


def tell_torchrun() -> None:
    """Tell the torchrun that started this process (`launch.torchrun`) that the training is to stop, before it ends.

    torchrun counts every exit code but 0 as a failure that a restart may help, and has no public way to learn of 75.
    """
    parent = os.getppid()
    if os.environ.get(TORCHRUN_VARIABLE) == str(parent):
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent, TOLD)
