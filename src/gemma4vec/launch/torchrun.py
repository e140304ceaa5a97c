"""torchrun whose trainings can be stopped: `python -m gemma4vec.launch.torchrun ARGUMENTS OF torchrun`.

torchrun itself dies of SIGUSR1, gives its processes 30 seconds after SIGTERM, and ends with 1 whatever they ended with.
This one passes SIGTERM, SIGUSR1 and SIGHUP (a lost terminal) on, waits until all have saved, and ends with 75 then, so
that a scheduler knows what to start again. A process that dies is restarted as torchrun does (`--max-restarts`).
Of several machines, each announces the address from which it reaches the first one (`meeting_point.py`).
"""

import argparse
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from types import FrameType

import psutil

from gemma4vec.errors import InputError, Interrupted, WorkError
from gemma4vec.launch.meeting_point import own_address
from gemma4vec.training.processes.stop_signals import STOPPING_VARIABLE, TOLD, TORCHRUN_VARIABLE

# What our processes are sent for each signal; they know no SIGHUP.
PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGTERM,
}
LEFT_TO_TORCH = "SIGINT,SIGQUIT"


def main(words: Sequence[str] | None = None) -> int:
    """Run torchrun with these arguments, and return the exit code: 75 if a signal stopped the training."""
    for one in PASSED_ON:
        # `nohup` ignores SIGHUP on purpose.
        if one is not signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _pass_on)
    signal.signal(TOLD, _start_nothing_more)

    # Its warnings are pages of frames about one refused connection; our own line says what that means.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[TORCHRUN_VARIABLE] = str(os.getpid())
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    words = sys.argv[1:] if words is None else words
    try:
        run.run(_read(words))
    except Interrupted as stopped:
        return stopped.exit_code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return InputError.exit_code
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == Interrupted.exit_code or os.environ.get(STOPPING_VARIABLE):
            return Interrupted.exit_code
        how = _describe(failure.exitcode)
        print(f"error: process {rank} of the training {how}; its own last line says why", file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else WorkError.exit_code
    except SignalException as error:
        print(f"interrupted: torchrun got {signal.Signals(error.sigval).name}", file=sys.stderr)
        return 128 + int(error.sigval)
    except (RendezvousError, DistError) as error:
        if os.environ.get(STOPPING_VARIABLE):
            return Interrupted.exit_code
        reason = " ".join(str(error).split())[:160]
        print(f"error: torchrun on the first machine has ended, or cannot be reached ({reason})", file=sys.stderr)
        return WorkError.exit_code
    return 0


def _read(words: Sequence[str]) -> argparse.Namespace:
    """torchrun's arguments; its machines meet as `rendezvous` says, and each announces its own address."""
    from torch.distributed.run import parse_args

    from gemma4vec.launch.rendezvous import BACKEND, TORCHS, register

    given = parse_args(["--signals-to-handle", LEFT_TO_TORCH, *words])
    if given.standalone:  # as torchrun reads it
        given.standalone, given.rdzv_backend = False, TORCHS
        given.rdzv_endpoint, given.rdzv_id = "localhost:0", str(uuid.uuid4())
    elif given.rdzv_backend == TORCHS and given.rdzv_endpoint and given.local_addr is None:
        given.local_addr = own_address(given.rdzv_endpoint)
    if given.rdzv_backend == TORCHS:
        register()
        given.rdzv_backend = BACKEND
    return given


def _start_nothing_more(number: int, frame: FrameType | None) -> None:
    os.environ[STOPPING_VARIABLE] = "1"  # processes that torchrun starts from now on end at once


def _pass_on(number: int, frame: FrameType | None) -> None:
    _start_nothing_more(number, frame)
    children = psutil.Process().children()
    for child in children:
        try:
            child.send_signal(PASSED_ON[signal.Signals(number)])
        except psutil.NoSuchProcess:
            continue
    if not children:  # it waits for other machines
        sys.exit(Interrupted.exit_code)


def _describe(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
