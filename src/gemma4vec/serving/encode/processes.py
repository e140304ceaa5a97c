"""Several worker processes on one machine, which divide the shards by lease files.

A worker that somebody kills costs the shard that it had: the others take it over. A worker that reports an error ends
all. Workers whose parent was killed end too.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import SynchronizedArray
from typing import Literal, NamedTuple

from gemma4vec.errors import Gemma4VecError, InputError, WorkError
from gemma4vec.machine.describe import usable_cores
from gemma4vec.serving.encode.bulk_embedder import Opener
from gemma4vec.serving.encode.work import Job, work

logger = logging.getLogger(__name__)

START_METHOD: Literal["spawn"] = "spawn"  # torch's threads do not survive a fork
LOOK = 0.1  # seconds between two looks at the workers
ENDING = 5.0  # seconds in which a worker that is asked to end has ended


class _Worker(NamedTuple):
    process: BaseProcess
    answers: Connection


def work_in_processes(
    job: Job, opener: Opener, shards: Sequence[int], workers: int, report: Callable[[int], None]
) -> list[int]:
    """As `work`, in `workers` processes that share the processor's cores.

    Raises:
        InputError, WorkError: what a worker reported, or all of them were killed.
    """
    context = multiprocessing.get_context(START_METHOD)
    rows_done: SynchronizedArray[int] = context.Array("q", workers)
    threads = max(1, usable_cores() // workers)
    running: list[_Worker] = []
    made: list[int] = []
    killed = 0
    with _environment(OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true"):
        for number in range(workers):
            answers, sender = context.Pipe(duplex=False)
            settings = (job, opener, list(shards), number, threads, rows_done, sender, os.getpid())
            process = context.Process(target=_run, args=settings, daemon=True)
            process.start()
            sender.close()
            running.append(_Worker(process, answers))
    started = list(running)
    try:
        while running:
            time.sleep(LOOK)
            report(sum(rows_done[:]))
            for worker in [one for one in running if one.process.exitcode is not None]:
                running.remove(worker)
                answer = _answer(worker.answers)
                if answer is None:
                    killed += 1
                    logger.warning(f"a worker ended without an answer (exit code {worker.process.exitcode})")
                else:
                    made += answer
    finally:
        _end(started)
    if killed == workers:
        raise WorkError(
            f"all {workers} workers were killed (out of memory? try fewer); finished shards stay, run the same command "
            "again to go on"
        )
    return sorted(made)


def _answer(answers: Connection) -> list[int] | None:
    """The shards that a worker encoded; None: it was killed.

    Raises:
        InputError, WorkError: it failed.
    """
    try:
        if not answers.poll():
            return None
        kind, value = answers.recv()
    except (EOFError, OSError):
        return None
    if kind == "done":
        return list(value)
    raise InputError(value) if kind == "input" else WorkError(value)


def _end(workers: Sequence[_Worker]) -> None:
    """End those that still run."""
    for worker in workers:
        if worker.process.exitcode is None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(ENDING)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        worker.answers.close()


def _run(
    job: Job,
    opener: Opener,
    shards: list[int],
    number: int,
    threads: int,
    rows_done: "SynchronizedArray[int]",
    sender: Connection,
    parent: int,
) -> None:
    """A worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()

    def report(done: int) -> None:
        rows_done[number] = done

    try:
        answer: tuple[str, object] = "done", work(job, opener(threads, number), shards, report)
    except Gemma4VecError as error:
        answer = ("input" if isinstance(error, InputError) else "work"), str(error)
    except Exception as error:
        answer = "work", f"a worker failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    sender.send(answer)
    sender.close()


def _follow(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables that child processes begin with; those that the user has set stay."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
