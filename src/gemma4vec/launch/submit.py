"""Hand a launch text to the program that runs it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from gemma4vec.errors import InputError, WorkError


def find_program(name: str) -> str:
    """Return the path of a program.

    Raises:
        InputError: it is not installed here.
    """
    found = shutil.which(name)
    if found is None:
        raise InputError(f"the program {name} is not on this machine; leave --submit out, and use the text where it is")
    return found


def become(words: Sequence[str]) -> None:
    """Become this program: signals reach it, and its exit code is ours. Does not return.

    Raises:
        InputError: the program is not installed.
        WorkError: it cannot be run.
    """
    program = find_program(words[0])
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, list(words))
    except OSError as error:
        raise WorkError(f"{program} cannot be run: {error.strerror}") from error


def hand_over(words: Sequence[str], text: str | None = None) -> str:
    """Run a scheduler's program, with `text` as its input, and return the last line that it prints.

    Raises:
        InputError: the program is not installed.
        WorkError: it refuses the job.
    """
    program = find_program(words[0])
    done = subprocess.run(
        [program, *words[1:]], input=text, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    last = lines[-1] if lines else ""
    if done.returncode != 0:
        raise WorkError(f"{words[0]} refused the job (exit code {done.returncode}): {last or 'it says nothing'}")
    return last
