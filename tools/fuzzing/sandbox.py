"""Runs one command in a forked child: captured, limited, watched for what it writes and whom it calls."""

import ctypes
import errno
import gc
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fuzzing.inputs import Input

MEMORY_BYTES = 8 * 2**30  # of address space above what the parent has
FILE_BYTES = 2**30
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event of Python's audit -> places of the paths among its arguments. Those with a dir_fd are inside a checked folder.
CHANGING = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.chmod": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
}
# Where TMPDIR names no folder, Python looks for another by a file of eight letters in each of these.
_TEMPORARY_FOLDER_PROBE = re.compile(r"/(?:tmp|var/tmp|usr/tmp)/[a-z0-9_]{8}")
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        code: its exit code; None: it ended otherwise.
        signal: the signal that ended it, if one did.
        seconds: how long it ran; `hung` where that was too long.
        outside: what it wrote, or whom it called, outside the working folder.
    """

    code: int | None
    signal: int | None
    hung: bool
    seconds: float
    stdout: bytes
    stderr: bytes
    outside: tuple[str, ...]


@dataclass(frozen=True)
class Sandbox:
    """A folder `root` with the place where commands run, its template, and their output.

    Absolute paths in files of the place lead there, so that a place is always made again under the same name.
    """

    root: Path

    @property
    def place(self) -> Path:
        """The working folder of commands."""
        return self.root / "place"

    @property
    def template(self) -> Path:
        """What the place is before each input."""
        return self.root / "template"

    def fresh(self, parts: tuple[str, ...]) -> None:
        """Make the place again, with the parts of the template that an input needs."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        (self.place / "tmp").mkdir()
        (self.place / "home").mkdir()
        for part in parts:
            source = self.template / part
            if source.is_dir():
                shutil.copytree(source, self.place / part, symlinks=True)
            elif source.exists():
                shutil.copy2(source, self.place / part)

    def environment(self) -> dict[str, str | None]:
        """Variables of every command: all that it may write is in the place."""
        place = str(self.place)
        return {
            "GEMMA4VEC_HOME": "runs",
            "GEMMA4VEC_CACHE": f"{place}/cache",
            "HOME": f"{place}/home",
            "TMPDIR": f"{place}/tmp",
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "100",
            "XDG_CACHE_HOME": None,
            "TORCHINDUCTOR_CACHE_DIR": None,
        }

    def run(self, work: Callable[[], int], one: Input, limit_seconds: float) -> Outcome:
        """Run `work` in a forked child, with the input's environment, encoding and stdin."""
        before = _names(self.root), _names(self.root.parent)
        logs = {name: self.root / f"{name}.log" for name in ("stdout", "stderr", "stdin", "outcome")}
        logs["stdin"].write_bytes(one.stdin)
        for name in ("stdout", "stderr", "outcome"):
            logs[name].write_bytes(b"")
        before = before[0] | {path.name for path in logs.values()}, before[1]
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(self, work, one, logs)
        code, hung = _wait(child, started + limit_seconds)
        seconds = time.monotonic() - started
        _end_orphans()
        report = logs["outcome"].read_text(encoding="utf-8", errors="replace")
        outside: list[str] = []
        for folder, known in ((self.root, before[0]), (self.root.parent, before[1])):
            for name in sorted(_names(folder) - known):
                outside.append(f"new: {folder / name}")
                shutil.rmtree(folder / name, ignore_errors=True) if (folder / name).is_dir() else (
                    folder / name
                ).unlink()
        ended = json.loads(report) if report else {}
        return Outcome(
            code=ended.get("code"),
            signal=-code if code < 0 and not hung else None,
            hung=hung,
            seconds=seconds,
            stdout=logs["stdout"].read_bytes(),
            stderr=logs["stderr"].read_bytes(),
            outside=(*ended.get("outside", ()), *outside),
        )


def prepare_parent() -> None:
    """Before the first fork: the collector copies no objects; what a child leaves running becomes ours."""
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_environment(values: Mapping[str, str | None]) -> None:
    """Set variables, or remove them (None)."""
    for name, text in values.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def _wait(child: int, until: float) -> tuple[int, bool]:
    """(exit code, or minus the signal; whether it ran too long and was killed)."""
    pause = 0.001
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), True


def _end_orphans() -> None:
    """End what the child left running: it became ours (see `prepare_parent`)."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    if not listing.exists():
        return
    while found := listing.read_text().split():
        for number in map(int, found):
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


def _child(sandbox: Sandbox, work: Callable[[], int], one: Input, logs: Mapping[str, Path]) -> None:
    """The forked child: it never returns."""
    report = os.open(logs["outcome"], os.O_WRONLY)
    os.setsid()
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        opened = os.open(logs[name], flags | (os.O_APPEND if number else 0))
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8", errors="surrogateescape")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), encoding=one.encoding)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w")), encoding=one.encoding, errors="backslashreplace", line_buffering=True
    )
    set_environment({**sandbox.environment(), **one.environment})
    os.chdir(sandbox.place)
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    _limit()
    _drop_capabilities()
    outside: list[str] = []
    sys.addaudithook(_watch(str(sandbox.place.resolve()), outside))
    code: int | None = None
    try:
        code = work()
        sys.stdout.flush()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os.write(report, json.dumps({"code": code, "outside": outside}).encode("ascii"))
            os._exit(0)


def _limit() -> None:
    """Memory and file sizes: an odd number must not take the machine."""
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        if os.path.exists("/proc")
        else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _drop_capabilities() -> None:
    """Where this is root, files without permissions are refused as to anybody else."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())


def _watch(place: str, outside: list[str]) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that refuses and notes every write outside the place, and every network connection."""
    real_path, fspath, dirname = os.path.realpath, os.fsdecode, os.path.dirname
    busy = False

    def refuse(event: str, path: str) -> None:
        if not (event == "open" and _TEMPORARY_FOLDER_PROBE.fullmatch(path)):
            outside.append(f"{event}: {ascii(path)[1:-1]}")
        raise PermissionError(errno.EACCES, "outside the working folder", path)

    def check(event: str, given: object) -> None:
        if not isinstance(given, str | bytes | os.PathLike):
            return  # an open file
        path = fspath(given)
        if "\x00" in path or path.startswith("/proc/self/"):
            return
        where = (
            real_path(path)
            if event == "open"
            else os.path.join(real_path(dirname(path) or "."), os.path.basename(path))
        )
        if where not in (place, "/dev/null") and not where.startswith(place + "/"):
            refuse(event, path)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            if event == "open":
                flags = arguments[2]
                if isinstance(flags, int) and flags & WRITES:
                    check(event, arguments[0])
            elif event in CHANGING:
                inside_a_checked_folder = (
                    event != "os.truncate" and isinstance(arguments[-1], int) and arguments[-1] >= 0
                )
                if inside_a_checked_folder:
                    return
                for at in CHANGING[event]:
                    check(event, arguments[at])
            elif event == "socket.connect":
                refuse(event, str(arguments[1]))
            elif event == "os.system":
                refuse(event, str(arguments[0]))
        finally:
            busy = False

    return hook
