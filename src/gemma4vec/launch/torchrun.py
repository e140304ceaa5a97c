"""torchrun whose trainings can be stopped: `python -m gemma4vec.launch.torchrun ARGUMENTS OF torchrun`.

torchrun itself dies of SIGUSR1, gives its processes 30 seconds after SIGTERM, and ends with 1 whatever they ended with.
This one passes SIGTERM, SIGUSR1 and SIGHUP (a lost terminal) on, waits until all have saved, and ends with 75 then, so
that a scheduler knows what to start again. A process that dies is restarted as torchrun does (`--max-restarts`).
Of several machines, each announces the address from which it reaches the first one (`meeting_point.py`).
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from gemma4vec.errors import InputError, Interrupted, WorkError
from gemma4vec.launch.meeting_point import own_address
from gemma4vec.training.job import STOPPING_VARIABLE

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

    # Its warnings are pages of frames about one refused connection; our own line says what that means.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    _restart_nothing_that_was_stopped()
    words = sys.argv[1:] if words is None else words
    try:
        run.main(["--signals-to-handle", LEFT_TO_TORCH, *_local_address(words), *words])
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


def _restart_nothing_that_was_stopped() -> None:
    """Keep torchrun from starting processes again that ended with 75: that may outlast a scheduler's warning."""
    from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    monitor = LocalElasticAgent._monitor_workers

    def monitor_and_note(self: LocalElasticAgent, group: WorkerGroup) -> RunResult:
        result = monitor(self, group)
        codes = [failure.exitcode for failure in result.failures.values()]
        if result.is_failed() and (os.environ.get(STOPPING_VARIABLE) or Interrupted.exit_code in codes):
            self._remaining_restarts = 0
        return result

    LocalElasticAgent._monitor_workers = monitor_and_note  # type: ignore[method-assign]


def _local_address(words: Sequence[str]) -> list[str]:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(words)
    if given.rdzv_backend != "c10d" or not given.rdzv_endpoint or given.local_addr is not None:
        return []
    return ["--local-addr", own_address(given.rdzv_endpoint)]


def _pass_on(number: int, frame: FrameType | None) -> None:
    import psutil

    os.environ[STOPPING_VARIABLE] = "1"  # processes that torchrun starts from now on end at once
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
