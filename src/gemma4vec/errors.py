"""The two exceptions that reach people. Their message is one line: what, where, what to do."""


class Gemma4VecError(Exception):
    """Base of the errors that are shown as one line, without a traceback."""

    exit_code = 1


class InputError(Gemma4VecError):
    """Bad usage or bad input: the person can mend it. Exit code 2."""

    exit_code = 2


class WorkError(Gemma4VecError):
    """The work itself failed (disk full, non-finite loss, broken model). Exit code 1."""

    exit_code = 1
