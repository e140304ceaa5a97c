"""Everything that needs a GPU, in one program: correctness, speed, quality. No network, 20 minutes on an H100.

    python benchmarks/gpu.py --data DIR                      # all parts
    python benchmarks/gpu.py --base FOLDER --parts correctness training-270m

Each part is a process of its own with its own limit: one that fails, hangs or needs too much memory stops no other.
Each writes `gpu-<part>-<GPU>.json` as soon as it is done. DIR holds `train/*.jsonl[.gz]` (rows, for real lengths and
for the training) and `retrieval/NAME` (suites in BEIR layout); without it rows are made up and `quality` is left out.
Where bundled:gemma-3-270m is not installed, name its folder with --base. `--smoke` runs everything on a CPU with models
and sizes that mean nothing, to see that it runs.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import RESULTS, as_program, say, write_result

from gemma4vec.errors import InputError, WorkError

# Seconds that a part may take on an H100; with the training's minutes together under 20 minutes.
LIMITS = {
    "correctness": 240,
    "training-270m": 180,
    "encoding-270m": 90,
    "training-e2b": 210,
    "encoding-e2b": 110,
    "quality": 110,  # and the minutes of training
}
GRACE = 20  # seconds between asking a part to stop and killing it


def main() -> int:
    arguments = parse_arguments()
    if arguments.one:
        return run_part(arguments)
    wanted = arguments.parts or [part for part in LIMITS if part != "quality" or arguments.data]
    if "quality" in wanted and arguments.data is None:
        raise InputError("the part quality needs --data DIR with train/ and retrieval/")
    outcomes = {part: start_part(part, arguments) for part in wanted}
    print(f"{'part':<16}{'outcome':<34}{'seconds':>8}")
    for part, (outcome, seconds) in outcomes.items():
        print(f"{part:<16}{outcome:<34}{seconds:>8.0f}")
    return 0 if all(outcome == "done" for outcome, _ in outcomes.values()) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:gemma-3-270m", help="Gemma 3 270M: bundled:NAME or a folder")
    parser.add_argument("--data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--parts", nargs="+", choices=list(LIMITS), help="default: all")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training in the part quality")
    parser.add_argument("--recipe", type=Path, help="for the part quality; its data and budget are replaced")
    parser.add_argument("--suites", nargs="+", default=[], help="for the part quality; default: all of the folder")
    parser.add_argument("--hard-negatives", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs=2, default=[64, 16], metavar=("270M", "E2B"), help="rows in a batch")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps in a timed block")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--documents", type=int, default=4000, help="that are encoded")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--one", choices=list(LIMITS), help=argparse.SUPPRESS)  # this process is one part
    arguments = parser.parse_args()
    if arguments.smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        arguments.steps, arguments.warm_up, arguments.repeats, arguments.documents = 1, 1, 1, 12
        arguments.rows, arguments.hard_negatives = [2, 2], 1
    return arguments


def start_part(part: str, arguments: argparse.Namespace) -> tuple[str, float]:
    """Run one part in a process of its own; gives how it ended and its seconds."""
    limit = LIMITS[part] + (60 * arguments.minutes if part == "quality" and not arguments.smoke else 0)
    say(f"{part}: at most {limit:.0f} s")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--one", part])
    try:
        code = process.wait(limit)
        outcome = "done" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        outcome = f"stopped after {limit:.0f} s"
        process.terminate()  # it writes what it has
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    seconds = time.monotonic() - started
    say(f"{part}: {outcome}, {seconds:.0f} s")
    return outcome, seconds


def run_part(arguments: argparse.Namespace) -> int:
    """This process's part, and its result file: also what was found by one that fails or is stopped."""
    part, started = arguments.one, time.monotonic()
    import torch

    if not arguments.smoke and not torch.cuda.is_available():
        raise WorkError("torch sees no GPU here; --smoke runs the parts on a CPU with tiny sizes")
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        os.environ.setdefault("GEMMA4VEC_HOME", str(Path(folder) / "runs"))
        signal.signal(signal.SIGTERM, stop)
        found: dict[str, Any] = {}
        failure = None
        try:
            measure(part, arguments, Path(folder), found)
        except Exception as error:
            failure = error
            found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    measured = {"part": part, "smoke": arguments.smoke, "seconds": time.monotonic() - started, **found}
    write_result(f"gpu-{part}" + ("-smoke" if arguments.smoke else ""), measured, arguments.results)
    if failure is not None:
        raise failure
    return 0


def stop(*_: Any) -> None:
    """The time is up."""
    raise WorkError("stopped at its time limit; what it had measured by then is written")


def measure(part: str, arguments: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Put what one part finds into `found`, bit by bit."""
    from gpu_models import e2b_base, tiny_base, write_rows

    from gemma4vec.model.bases import resolve_base

    device = "cpu" if arguments.smoke else "cuda"
    base = resolve_base(arguments.base, notice=say).path
    if part == "quality":
        from gpu_quality import quality, quality_recipe, suites_of

        recipe = quality_recipe(str(base), arguments.data, arguments.minutes, arguments.recipe, arguments.smoke)
        return quality(recipe, suites_of(arguments.data, arguments.suites), folder / "quality", found)
    hard_negatives = 1 if part == "correctness" else arguments.hard_negatives
    count = 40 if arguments.smoke else 8 if part == "correctness" else 6000
    rows = write_rows(folder / "rows.jsonl", arguments.data, count, hard_negatives)
    if part == "correctness":
        from gpu_correct import correctness

        from gemma4vec.data.sources import load_sources
        from gemma4vec.recipe.sources import Source

        loaded = list(load_sources((Source(name="rows", path=str(rows)),), say).rows)[:8]
        bases = {"tiny": tiny_base(base, folder / "tiny")} | ({} if arguments.smoke else {"270m": base})
        return correctness(bases, loaded, device, found, compiled=not arguments.smoke)
    kind, size = part.split("-")
    if size == "e2b":
        base = e2b_base(base, folder / "e2b", device, small=arguments.smoke)
    from gpu_speed import encoding, training

    if kind == "encoding":
        return encoding(base, rows, arguments, folder, found)
    return training(base, rows, arguments, arguments.rows[size == "e2b"], folder, found)


if __name__ == "__main__":
    as_program(main)
