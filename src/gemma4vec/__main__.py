"""`python -m gemma4vec` is the command `gemma4vec`: this module is what both start."""

import sys
from collections.abc import Sequence

from gemma4vec.training.processes.stop_signals import end_at_signals

# Commands that end with 75 after SIGTERM or SIGUSR1, and go on when they are started again.
STOPPABLE = ("train", "encode", "pipeline", "matrix")


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. Signals that stop it are answered before anything heavy is imported."""
    words = sys.argv[1:] if arguments is None else arguments
    if next((word for word in words if not word.startswith("-")), None) in STOPPABLE:
        end_at_signals()
    from gemma4vec.cli.main import run as run_command

    run_command(words)


if __name__ == "__main__":
    run()
