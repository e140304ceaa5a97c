"""`make fuzz`: thousands of odd files, arguments and variables; no command may fail in a way that a person cannot read.

    python tools/fuzz.py                             5,000 inputs from a new seed, on two workers
    python tools/fuzz.py --seed 7 --inputs 300       the first 300 of seed 7
    python tools/fuzz.py --kinds rows tables         some kinds only (--list names all)
    python tools/fuzz.py --again build/fuzz/7-42.json    one kept failure, with its traceback

Each input is a command on a tiny place (a base of some thousand parameters, eight rows, two runs) in which one file, or
the command line, or a variable is odd. It fails where the command prints a traceback or "unexpected ...", ends with
another exit code than 0, 1 or 2, dies of a signal, runs longer than a minute, writes outside the working folder, or
prints no valid JSON with `--json`. A failure is one file in build/fuzz/, which holds the whole input.

Exit codes: 0 no failures, 1 failures, 2 bad usage.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Before anything of torch or tokenizers is imported: children are forked, so that no library may have threads.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

from filelock import FileLock, Timeout

from fuzzing.inputs import Input
from fuzzing.kinds import KINDS, LIGHT
from fuzzing.worker import Failure, Found, Worker, say

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "fuzz"
INPUTS = 5000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{name}{'' if kind.models else '  (light)'}" for name, kind in KINDS.items()))
        return 0
    if options.again:
        return _again(options.again)
    if options.merge:
        found = _merged([json.loads(file.read_text(encoding="utf-8")) for file in options.merge])
    else:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
        names = tuple(options.kinds or (LIGHT if options.light else KINDS))
        say(f"seed {seed}, {options.inputs} inputs, {len(names)} kinds")
        alone = options.part is not None or options.workers == 1
        found = _alone(options, seed, names) if alone else _together(options, seed, names)
    if options.part is None:
        print(summary(found))
    if options.keep:
        _keep(found)
    return 1 if found["failures"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run odd inputs through every command (see the top of tools/fuzz.py).")
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"number of inputs (default {INPUTS})")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument(
        "--kinds", nargs="+", choices=sorted(KINDS), metavar="KIND", help="kinds of input; default: all"
    )
    parser.add_argument("--light", action="store_true", help="only kinds that need no model: no torch is imported")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    parser.add_argument("--place", type=Path, default=_place(), help="folder of the places where inputs run, in memory")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of failures (default build/fuzz)")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run a kept failure again and show its traceback")
    parser.add_argument("--result", type=Path, metavar="FILE", help="write counts and failures as JSON")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="add up the results of parts; run nothing"
    )
    parser.add_argument("--keep", action="store_true", help="store the counts in benchmarks/results")
    parser.add_argument("--list", action="store_true", help="list the kinds of input")
    parser.add_argument("--part", type=_part, metavar="I/N", help="run each N-th input alone, from the I-th")
    return parser


def _part(text: str) -> tuple[int, int]:
    at, parts = text.split("/")
    return int(at), int(parts)


def _place() -> Path:
    """The folder of places: always the same, since files of a place name it; in memory if possible."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"gemma4vec-fuzz-{os.getuid()}"


def _alone(options: argparse.Namespace, seed: int, names: tuple[str, ...]) -> Found:
    """All inputs, or one part of them, in this process."""
    at, parts = options.part or (0, 1)

    def store(found: Found) -> None:
        if options.result:
            options.result.write_text(json.dumps(found) + "\n", encoding="utf-8")

    root = options.place / str(at)
    with _own(root):
        worker = Worker(root, names, options.kept)
        found = worker.run(seed, range(options.first + at, options.first + options.inputs, parts), store)
        store(found)
        shutil.rmtree(root, ignore_errors=True)
    return found


@contextmanager
def _own(root: Path) -> Iterator[None]:
    """One program at a time uses a place: a second one would remove it under the first."""
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.with_name(f"{root.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        sys.exit(f"error: {root} is in use by another run of this program; wait for it, or give another --place")
    try:
        yield
    finally:
        lock.release()


def _together(options: argparse.Namespace, seed: int, names: tuple[str, ...]) -> Found:
    """All parts at once, each in a process of its own."""
    passed = {key: getattr(options, key) for key in ("place", "inputs", "first", "kept")} | {"seed": seed}
    words = [word for key, given in passed.items() for word in (f"--{key}", str(given))]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{at}.json" for at in range(options.workers)]
        processes = []
        for at, file in enumerate(files):
            own = ["--part", f"{at}/{options.workers}", "--result", str(file), "--kinds", *names]
            processes.append(subprocess.Popen([sys.executable, __file__, *words, *own]))
        codes = [process.wait() for process in processes]
        if any(code not in (0, 1) for code in codes) or not all(file.exists() for file in files):
            sys.exit(f"error: a worker ended with {codes}")
        return _merged([json.loads(file.read_text(encoding="utf-8")) for file in files])


def _merged(parts: list[Found]) -> Found:
    """The parts of one run as one."""
    inputs, codes, slowest = Counter[str](), Counter[str](), dict[str, float]()
    for part in parts:
        inputs.update(part["inputs"])
        codes.update(part["codes"])
        for name, seconds in part["slowest"].items():
            slowest[name] = max(seconds, slowest.get(name, 0.0))
    return {
        "seed": parts[0]["seed"],
        "seconds": max(part["seconds"] for part in parts),
        "inputs": dict(sorted(inputs.items())),
        "codes": dict(sorted(codes.items())),
        "slowest": dict(sorted(slowest.items())),
        "failures": [failure for part in parts for failure in part["failures"]],
    }


def _keep(found: Found) -> None:
    """Store counts, commit and machine next to the results of the benchmarks."""
    sys.path.append(str(ROOT))
    from benchmarks.shared.record import write_result

    write_result("fuzz", {"command": ["make", "fuzz", f'ARGS="--seed {found["seed"]}"'], **found})


def summary(found: Found) -> str:
    """A table of kinds by exit code, then failures by the line that they come from."""
    lines = [f"{'kind':20} {'inputs':>7} {'code 0':>7} {'code 1':>7} {'code 2':>7} {'failed':>7}"]
    failed = Counter(one["kind"] for one in found["failures"])
    for name, count in found["inputs"].items():
        cells = [count, *(found["codes"].get(f"{name} {code}", 0) for code in (0, 1, 2)), failed[name]]
        lines.append(f"{name:20} " + " ".join(f"{cell:>7}" for cell in cells))
    groups: dict[str, list[Failure]] = {}
    for one in found["failures"]:
        groups.setdefault(one["where"], []).append(one)
    for where, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(members):4} {where}: {members[0]['faults'][0][:200]} ({members[0]['file']})")
    lines.append(f"seed {found['seed']}: {sum(found['inputs'].values())} inputs, {len(found['failures'])} failures")
    return "\n".join(lines)


def _again(file: Path) -> int:
    """Run a kept failure again, on a place under the name that it had then."""
    one = Input.load(file)
    root = Path(json.loads(file.read_text(encoding="utf-8"))["root"])
    with _own(root):
        worker = Worker(root, (one.kind,), KEPT)
        outcome, wrong = worker.once(Input(**{**vars(one), "words": ("--traceback", *one.words)}))
        shutil.rmtree(root, ignore_errors=True)
    say(outcome.stdout.decode("utf-8", "replace") + outcome.stderr.decode("utf-8", "replace"))
    print(f"{' '.join(one.words)}\n" + ("\n".join(wrong) or "nothing is wrong now"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
