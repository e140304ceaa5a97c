"""A module that ends when its stdin does: `python -m gemma4vec.launch.attached MODULE [ARGUMENT ...]`.

ssh joins a program on another machine to the script that started it only by its streams. A terminal (`ssh -tt`) would
pass a hang-up on, but mixes stderr into stdout and hides the exit code of a program that saves after it. So the script
keeps stdin open, and closes it to stop the work; sshd closes it when the connection is lost.
"""

import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence

from gemma4vec.errors import InputError

_INTERRUPTED = 128 + signal.SIGINT


def main(words: Sequence[str] | None = None) -> None:
    """Run the module as `python -m` does; end of stdin sends SIGTERM, or SIGINT where nothing handles SIGTERM."""
    words = sys.argv[1:] if words is None else words
    if not words:
        print("error: no module; give MODULE [ARGUMENT ...]", file=sys.stderr)
        raise SystemExit(InputError.exit_code)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, as below `nohup`
    stdin = os.dup(0)  # processes that it starts do not inherit the copy
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv[1:] = words[1:]
    try:
        threading.Thread(target=_watch, args=(stdin,), daemon=True).start()
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # before the module handles signals; afterwards it answers itself
        raise SystemExit(_INTERRUPTED) from None


def _watch(stdin: int) -> None:
    while os.read(stdin, 4096):
        pass
    handled = signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGTERM if handled else signal.SIGINT)


if __name__ == "__main__":
    main()
