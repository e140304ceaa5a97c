"""What is launched: a training of a recipe, or the encoding of many texts in parts. Both become shell words."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gemma4vec.errors import InputError
from gemma4vec.ledger.run_folder import slug
from gemma4vec.recipe.load import load_recipe

ENCODE = "encode"
# Options of `encode` that say which part one process does: launching writes them.
_OF_A_PART = ("--shard", "--workers")
PORT = 29500
TORCHRUN = "gemma4vec.launch.torchrun"


class Shell(str):
    """A word of shell code, such as `"$SLURM_JOB_ID"`, which is written as it is; other words are quoted."""

    __slots__ = ()


def shell_line(words: Sequence[str]) -> str:
    """One line of shell: each word quoted, but for `Shell` words."""
    return " ".join(word if isinstance(word, Shell) else shlex.quote(word) for word in words)


@dataclass(frozen=True)
class Work:
    """What is launched.

    Attributes:
        words: of `gemma4vec train` (recipe, overrides) or of `gemma4vec encode` (run, input, output, options).
        name: of the job: ASCII letters, digits, `.`, `_` and `-`.
    """

    encodes: bool
    words: tuple[str, ...]
    name: str

    def train(self, out: str | None, job: str | None = None) -> list[str]:
        """The words after `torchrun ...`: `-m gemma4vec train RECIPE ...`."""
        where = ["--out", out] if out is not None else []
        return ["-m", "gemma4vec", "train", *self.words, *where, *(["--job", job] if job is not None else [])]

    def encode(self, *part: str) -> list[str]:
        """The words after `python`: `-m gemma4vec encode RUN INPUT OUT ...`."""
        return ["-m", "gemma4vec", ENCODE, *self.words, *part]


@dataclass(frozen=True)
class Processes:
    """How processes are started on each machine.

    Attributes:
        python: the interpreter that has gemma4vec.
        each: number of processes on each machine; 1 for parts of an encoding.
        max_restarts: how often torchrun starts all processes again after one has died.
        out: parent of the run folder; all machines must share it.
        variables: NAME=VALUE of the environment, set on each machine.
    """

    python: str = sys.executable
    each: int = 1
    max_restarts: int = 3
    out: str | None = None
    variables: tuple[str, ...] = ()

    def run(self, *words: str) -> list[str]:
        """The words that run Python with the variables set."""
        return [*(["env", *self.variables] if self.variables else []), self.python, *words]

    def torchrun(self, *machines: str) -> list[str]:
        """The words of torchrun up to what it runs; `machines` say how many there are and where they meet."""
        words = ["-m", TORCHRUN, *machines]
        return [*words, "--nproc-per-node", str(self.each), "--max-restarts", str(self.max_restarts)]


def meeting_point(machines: str, name: str, address: str) -> list[str]:
    """Where the torchruns of several machines find each other, as words of torchrun; all may hold shell code."""
    return ["--nnodes", machines, "--rdzv-backend", "c10d", "--rdzv-id", name, "--rdzv-endpoint", address]


def parse_work(words: Sequence[str]) -> Work:
    """Read `RECIPE [KEY=VALUE ...]` or `encode RUN INPUT OUT [OPTION ...]`.

    Raises:
        InputError: an unknown recipe, a bad override, or an incomplete encoding.
    """
    if not words:
        raise InputError("nothing to launch; give RECIPE [KEY=VALUE ...], or encode RUN INPUT OUT")
    _check_words(words)
    if words[0] != ENCODE:
        recipe = load_recipe(words[0], list(words[1:]))
        return Work(False, tuple(words), slug(recipe.name))
    places = words[1:4]
    if len(places) < 3 or any(place.startswith("-") for place in places):
        raise InputError("encode needs RUN INPUT OUT, then its options after --: encode RUN INPUT OUT -- --format npy")
    for word in words[4:]:
        if (option := word.split("=", 1)[0]) in _OF_A_PART:
            raise InputError(f"leave {option} out: launching says which part each process encodes")
    return Work(True, tuple(words[1:]), slug(f"encode-{places[2].rstrip('/').rsplit('/', 1)[-1]}"))


def _check_words(words: Sequence[str]) -> None:
    for word in words:
        if not word or not all(one.isprintable() for one in word):
            raise InputError(f"{word[:60]!r} is no word of a command: it is empty or holds a control character")


def check_part(work: Work, processes: Processes) -> None:
    """Refuse several processes for each part of an encoding: they would be ignored.

    Raises:
        InputError: there are several.
    """
    if work.encodes and processes.each > 1:
        raise InputError(
            f"--nproc-per-node {processes.each}: a part of an encoding is one process; ask for more parts, "
            "or use launch local, whose processes share the work of one machine"
        )


def check_host(host: str) -> str:
    """Return a host as ssh takes it: `name` or `user@name`, a name or IPv4 address.

    Raises:
        InputError: it has other characters, or would be an option of ssh.
    """
    if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*", host) or len(host) > 255:
        raise InputError(
            f"the host {host[:60]!r} is no name or IPv4 address, with or without user@ (letters, digits, '.', '-')"
        )
    return host


def check_value(option: str, value: str | None) -> str | None:
    """Return the value of an option of a scheduler.

    Raises:
        InputError: it has spaces or other characters that these values do not have.
    """
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.,:@=+/*&|()\[\]-]{0,199}", value):
        raise InputError(f"{option}={value[:60]!r} has characters that no value of {option} has")
    return value


def check_variables(given: Sequence[str]) -> tuple[str, ...]:
    """Return variables of the environment as NAME=VALUE; NAME alone takes the value that it has here.

    Raises:
        InputError: a NAME that no shell takes, one without a value here, or a value with a control character.
    """
    found = []
    for one in given:
        name, equals, value = one.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f"--env {one[:60]!r} is no variable; write NAME=VALUE, or NAME for its value here")
        if not equals and name not in os.environ:
            raise InputError(f"--env {name}: it is not set here; write {name}=VALUE")
        value = value if equals else os.environ[name]
        if not all(character.isprintable() for character in value):
            raise InputError(f"--env {name}: its value holds a control character")
        found.append(f"{name}={value}")
    return tuple(found)


def check_path(option: str, path: str | None) -> str | None:
    """Return a path that is written into a text.

    Raises:
        InputError: it is empty, or has a line break or control code.
    """
    if path is not None:
        if not path or not all(one.isprintable() for one in path):
            raise InputError(f"{option}: {path[:60]!r} is no path: it is empty or holds a control character")
        if path.startswith("-"):
            raise InputError(f"{option}: {path[:60]!r} begins like an option; write ./{path[:60]}")
    return path
