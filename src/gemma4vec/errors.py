"""Exceptions shown to people as one line: what went wrong, where, and what to do."""


class Gemma4VecError(Exception):
    """Base class: the command line prints the message without a traceback and exits with `exit_code`."""

    exit_code = 1


class InputError(Gemma4VecError):
    """Bad usage or bad input, which the person can fix. Exit code 2."""

    exit_code = 2


class WorkError(Gemma4VecError):
    """The work failed: disk full, non-finite loss, broken model. Exit code 1."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 stopped the work, which goes on from what is saved. Exit code 75, for schedulers to requeue.

    75 is EX_TEMPFAIL of sysexits.h: a temporary failure, to be tried again.

    Attributes:
        agreed: whether all training processes stopped together after the same step.
    """

    exit_code = 75

    def __init__(self, message: str, *, agreed: bool = False):
        super().__init__(message)
        self.agreed = agreed
