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
