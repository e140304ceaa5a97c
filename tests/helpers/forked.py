"""Python programs in processes that need not import the libraries: `run` and `Popen` in place of `subprocess`'s.

Importing torch, transformers, peft and sentence-transformers takes a new process seven CPU seconds. Here a server has
imported them and forks a child for each program. The child takes over environment, folder, arguments and open files,
runs as `__main__`, and can be killed as any process can. The server computes nothing, so its children begin clean.
A program that is to know nothing of gemma4vec (`plain`) comes from a server that never imported it.

A test of the start itself (what is imported, variables that libraries read when they are imported) needs `subprocess`.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
LIBRARIES = (
    "peft",
    "sentence_transformers",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.models.llama.modeling_llama",
)
OURS = ("gemma4vec.cli.main", "gemma4vec.training.run", "gemma4vec.api.scoring")
_MORE = 1 << 16

cpu_seconds = 0.0
"""What children have used; the system counts them for the server. Tests' own sums add it (`cpu_times`)."""


class Popen:
    """The part of `subprocess.Popen` that tests use. `words` begin with `sys.executable`, then a file, `-m` or `-c`."""

    def __init__(
        self,
        words: Sequence[Any],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        text: bool = False,
        bufsize: int = -1,
        start_new_session: bool = False,
        plain: bool = False,
    ):
        assert words[0] == sys.executable
        self.args, self.returncode = list(words), None
        ours: list[IO[Any] | None] = []
        theirs: list[int] = []
        for number, wanted in enumerate((stdin, stdout, stderr)):
            mine = None
            if wanted is None:
                theirs.append(os.dup(number))
            elif wanted == subprocess.DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
            elif wanted == subprocess.STDOUT:
                theirs.append(os.dup(theirs[1]))
            elif wanted == subprocess.PIPE:
                reading, writing = os.pipe()
                mode = ("w" if number == 0 else "r") + ("" if text else "b")
                mine = os.fdopen(writing if number == 0 else reading, mode, buffering=-1 if text else bufsize)
                theirs.append(reading if number == 0 else writing)
            else:
                theirs.append(os.dup(wanted if isinstance(wanted, int) else wanted.fileno()))
            ours.append(mine)
        self.stdin, self.stdout, self.stderr = ours
        order = {
            "words": [str(word) for word in words[1:]],
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "session": start_new_session,
        }
        self._answers = _server().connect(order, theirs, plain)
        for descriptor in theirs:
            os.close(descriptor)
        self.pid = int(self._answer(None)["pid"])

    def _answer(self, timeout: float | None) -> dict[str, Any]:
        self._answers.settimeout(timeout)
        try:
            line = self._answers.recv(_MORE)
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        assert line, "the server of forked programs is gone"
        found: dict[str, Any] = json.loads(line)
        return found

    def wait(self, timeout: float | None = None) -> int:
        global cpu_seconds
        if self.returncode is None:
            answer = self._answer(timeout)
            self.returncode, used = answer["code"], answer["cpu"]
            cpu_seconds += used
            self._answers.close()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Both outputs whole, and the end of the process."""
        found: dict[int, Any] = {}
        files = {number: file for number, file in ((1, self.stdout), (2, self.stderr)) if file is not None}
        readers = [threading.Thread(target=lambda n=n, f=f: found.update({n: f.read()})) for n, f in files.items()]
        if self.stdin is not None:
            self.stdin.close()
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        for file in files.values():
            file.close()
        return found.get(1), found.get(2)

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()
        self.wait()


def run(
    words: Sequence[Any],
    *,
    check: bool = False,
    capture_output: bool = False,
    stdout: Any = None,
    timeout: float | None = None,
    **options: Any,
) -> "subprocess.CompletedProcess[Any]":
    """As `subprocess.run`."""
    if capture_output:
        stdout, options["stderr"] = subprocess.PIPE, subprocess.PIPE
    process = Popen(words, stdout=stdout, **options)
    try:
        output, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = subprocess.CompletedProcess(process.args, process.returncode or 0, output, errors)
    if check:
        done.check_returncode()
    return done


class _Server:
    """The server as its client sees it: a process, and sockets that take orders; the second for plain programs."""

    def __init__(self) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        self.orders, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        numbers = [one.fileno() for one in theirs]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, numbers)],
            pass_fds=numbers,
            env=environment | {"CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        for one in theirs:
            one.close()
        for one in self.orders:
            atexit.register(one.close)

    def connect(self, order: dict[str, Any], files: list[int], plain: bool) -> socket.socket:
        """Give an order; return the socket on which its process id and its end are answered."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            blob = json.dumps(order).encode()
            memory = os.memfd_create("order")  # an environment may be longer than a packet
            os.write(memory, blob)
            socket.send_fds(self.orders[plain], [b"run"], [theirs.fileno(), memory, *files])
            os.close(memory)
        return mine


_started: _Server | None = None


def _server() -> _Server:
    global _started
    if _started is None or _started.process.poll() is not None:
        _started = _Server()
    return _started


def serve(orders: socket.socket) -> None:
    """Fork for each order, answer with the process id and later with its exit code, until the client is gone."""
    import torch

    # Without it two threads of a child that come at once get no pool (`pipeline.worker.renew_thread_pool`).
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))
    gc.collect()
    gc.freeze()
    gc.enable()
    woken, waking = os.pipe()
    for descriptor in (woken, waking):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, _MORE)
        _answer_ended(running)
        if orders not in ready:
            continue
        _, files, _, _ = socket.recv_fds(orders, 16, 5)
        if not files:
            break
        reply = socket.socket(fileno=files[0])
        order = json.loads(os.pread(files[1], os.fstat(files[1]).st_size, 0))
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            for other in (orders, reply, *running.values()):
                other.close()
            _run(order, files[2:])
        running[child] = reply
        for descriptor in files[1:]:
            os.close(descriptor)
        reply.send(json.dumps({"pid": child}).encode())
    for child in running:
        os.kill(child, signal.SIGKILL)


def _answer_ended(running: dict[int, socket.socket]) -> None:
    while running:
        child, status, usage = os.wait4(-1, os.WNOHANG)
        if not child:
            return
        answer = {"code": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
        reply = running.pop(child, None)
        if reply is None:  # the server of plain programs
            continue
        try:
            reply.send(json.dumps(answer).encode())
        except OSError:
            print(f"nobody waits for {child}", file=sys.stderr)
        reply.close()


def _run(order: dict[str, Any], files: list[int]) -> None:
    """Be the program, to its end."""
    code = 1
    try:
        if order["session"]:
            os.setsid()
        for number, descriptor in enumerate(files):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGCHLD, signal.SIG_DFL)):
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        first, *words = order["words"]
        paths = [path for path in order["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
        place = str(Path(first).resolve().parent) if first not in ("-m", "-c") else order["cwd"]
        sys.path[:] = [place, *paths, *(path for path in sys.path[1:] if path not in paths)]
        code = _as_main(first, words)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _as_main(first: str, words: list[str]) -> int:
    """The program's exit code, found as Python finds it."""
    try:
        if first == "-m":
            sys.argv = list(words)
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *words[1:]]
            main = sys.modules["__main__"]
            main.__dict__.pop("__file__", None)
            exec(compile(words[0], "<string>", "exec"), main.__dict__)
        else:
            sys.argv = [first, *words]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    return 0


def import_all(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


if __name__ == "__main__":
    channel, plain_channel = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    gc.disable()  # what is imported stays
    import_all(LIBRARIES)
    if os.fork():
        plain_channel.close()
        import_all(OURS)
        serve(channel)
    else:
        channel.close()
        sys.path.remove(str(SOURCE))
        serve(plain_channel)
