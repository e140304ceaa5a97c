"""How long until gemma4vec answers: wall seconds of new processes, from start to exit.

    python -m benchmarks.speed.startup RUN

Each repeat starts each command once, in turn, as a process of its own, since starting is what is measured. Beside them
stand two that do nothing but import: Python alone, and sentence-transformers, which any tool of this kind has to load
before it can embed a query. The files are in the page cache after the first round, which is reported apart: it is as
cold as a program without root rights can make it.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.errors import WorkError


def main() -> None:
    arguments = parse_arguments()
    commands = commands_of(arguments)
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(-1, arguments.repeats):
        for name, command in commands.items():
            taken = run(name, command)
            say(f"{'first' if repeat < 0 else f'repeat {repeat + 1}'}: {name} {taken:.2f} s")
            if repeat < 0:
                first[name] = taken
            else:
                seconds[name].append(taken)
    found = {name: summary(values) for name, values in seconds.items()}
    measured: dict[str, Any] = {
        "unit": "wall seconds of a process",
        "how": "new processes in turn, one of each command a repeat",
        "first_round": first,
        "seconds": found,
    }
    for name, values in found.items():
        print(f"{name:32}  {shown(values, 2)} s, first {first[name]:.2f} s")
    if "search" in seconds:
        pairs = zip(seconds["search"], seconds["import sentence_transformers"], strict=True)
        measured["search_to_import"] = summary([search / alone for search, alone in pairs])
        print(f"a cold search takes {shown(measured['search_to_import'], 2)} times the import of sentence-transformers")
    write_result("startup", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="run to search (without it, search is left out)")
    parser.add_argument("--query", default="read a file line by line")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be 1 or more")
    return arguments


def commands_of(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """What is started, by what it is called in the result."""
    gemma4vec = [sys.executable, "-m", "gemma4vec"]
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import sentence_transformers": [sys.executable, "-c", "import sentence_transformers"],
        "--help": [*gemma4vec, "--help"],
        "doctor": [*gemma4vec, "doctor"],
    }
    if arguments.run:
        commands["search"] = [*gemma4vec, "search", arguments.run, arguments.query]
    return commands


def run(name: str, command: list[str]) -> float:
    """Seconds of one process.

    Raises:
        WorkError: it failed; how fast it did so says nothing.
    """
    around = dict(os.environ, HF_HUB_OFFLINE="1")
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=around, stdin=subprocess.DEVNULL)
    taken = time.perf_counter() - started
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise WorkError(f"{name} failed with exit code {done.returncode}: {reason}")
    return taken


if __name__ == "__main__":
    as_program(main)
