"""Everything that needs a GPU, in one program: correctness, speed, quality. No network, 20 minutes on an H100.

    python -m benchmarks.gpu --data DIR                      # all parts
    python -m benchmarks.gpu --base FOLDER --parts correctness training-270m --limits training-270m=300

Each part is a process of its own with its own limit: one that fails, hangs or needs too much memory stops no other.
Each writes `gpu-<part>-<GPU>.json` as it goes on: what was measured before a part was stopped is there, with
`finished: false`. DIR holds `train/*.jsonl[.gz]` (rows, for real lengths and for the training) and `retrieval/NAME`
(suites in BEIR layout); without it rows are made up and `quality` is left out.

The part quality looks at dev suites alone: those of `gpu_quality.DEV` that DIR has, or those that --suites names. It
leaves out of the training data what any suite of DIR holds, and records every look in `gpu-quality/ledger.jsonl` beside
the results (or in $GEMMA4VEC_HOME, where that is set).

Where bundled:gemma-3-270m is not installed, name its folder with --base. `--smoke` runs everything on a CPU with models
and sizes that mean nothing, to see that it runs; of the models it compiles a small Gemma 4, which takes some minutes
(`--eager` does without).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.found import STOPPED, Found, said_of
from benchmarks.shared.record import RESULTS, as_program, say
from gemma4vec.errors import InputError, WorkError

# Seconds that a part may take on an H100; with the training's minutes 20 minutes together.
LIMITS = {
    "correctness": 220,
    "training-270m": 240,
    "encoding-270m": 80,
    "training-e2b": 230,
    "encoding-e2b": 110,
    "quality": 140,  # and the minutes of training
}
SMOKE_LIMIT = 900  # of any part, with --smoke
GRACE = 20  # seconds that a part has to end itself at its limit, before it is killed


def main() -> int:
    arguments = parse_arguments()
    if arguments.one:
        return run_part(arguments)
    wanted = arguments.parts or [part for part in LIMITS if part != "quality" or arguments.data]
    if "quality" in wanted and arguments.data is None:
        raise InputError("the part quality needs --data DIR with train/ and retrieval/")
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        outcomes = {part: start_part(part, arguments, work) for part in wanted}
    print(f"{'part':<16}{'outcome':<34}{'seconds':>8}")
    for part, (outcome, seconds) in outcomes.items():
        print(f"{part:<16}{outcome:<34}{seconds:>8.0f}")
    return 0 if all(outcome == "done" for outcome, _ in outcomes.values()) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:gemma-3-270m", help="Gemma 3 270M: bundled:NAME or a folder")
    parser.add_argument("--data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--parts", nargs="+", choices=list(LIMITS), help="default: all")
    parser.add_argument(
        "--limits", nargs="+", default=[], type=limit_given, metavar="PART=SECONDS", help="instead of the usual ones"
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="of training in the part quality")
    parser.add_argument("--recipe", type=Path, help="for the part quality; its data and budget are replaced")
    parser.add_argument("--suites", nargs="+", default=[], help="dev suites of the folder, for the part quality")
    parser.add_argument("--hard-negatives", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs=2, default=[64, 16], metavar=("270M", "E2B"), help="rows in a batch")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps in a timed block")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--documents", type=int, nargs=2, default=[2000, 600], metavar=("270M", "E2B"), help="that are encoded"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--eager", action="store_true", help="compile nothing in correctness, training and quality")
    parser.add_argument("--one", choices=list(LIMITS), help=argparse.SUPPRESS)  # this process is one part
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # what parts share
    arguments = parser.parse_args()
    if arguments.smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        arguments.steps, arguments.warm_up, arguments.repeats, arguments.documents = 1, 1, 1, [12, 12]
        arguments.rows, arguments.hard_negatives = [2, 2], 1
    return arguments


def limit_given(text: str) -> tuple[str, float]:
    """`PART=SECONDS`."""
    part, _, seconds = text.partition("=")
    if part not in LIMITS or not seconds.isdecimal() or int(seconds) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no PART=SECONDS; parts are {', '.join(LIMITS)}")
    return part, float(seconds)


def limit_of(part: str, arguments: argparse.Namespace) -> float:
    """Seconds that a part may take."""
    usual = LIMITS[part] + (60 * arguments.minutes if part == "quality" else 0)
    return float(dict(arguments.limits).get(part, SMOKE_LIMIT if arguments.smoke else usual))


def start_part(part: str, arguments: argparse.Namespace, work: str) -> tuple[str, float]:
    """Run one part in a process of its own; gives how it ended and its seconds."""
    limit = limit_of(part, arguments)
    say(f"{part}: at most {limit:.0f} s")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--one", part, "--work", work])
    try:
        code = process.wait(limit + GRACE)
        outcome = {0: "done", STOPPED: f"stopped after {limit:.0f} s"}.get(code, f"failed with exit code {code}")
    except subprocess.TimeoutExpired:
        outcome = f"killed after {limit + GRACE:.0f} s"
        process.kill()
        process.wait()
    seconds = time.monotonic() - started
    say(f"{part}: {outcome}, {seconds:.0f} s")
    return outcome, seconds


def run_part(arguments: argparse.Namespace) -> int:
    """This process's part, and its result file: also what was found by one that fails or is stopped."""
    part = arguments.one
    name = f"gpu-{part}" + ("-smoke" if arguments.smoke else "")
    about = {"part": part, "smoke": arguments.smoke, "limit_seconds": limit_of(part, arguments)}
    found = Found(name, about, arguments.results, limit_of(part, arguments))
    import torch

    from gemma4vec.machine.device import choose_device

    chosen = choose_device()
    if not arguments.smoke and chosen.name != "cuda":
        why = chosen.reason or "torch sees no GPU here"
        raise WorkError(f"{why}; --smoke runs the parts on a CPU with tiny sizes")
    # TORCH_CUDNN_SDPA_DEPRIORITIZED=1 keeps torch from cuDNN's attention, which plans each new shape.
    found["cudnn_attention"] = torch.backends.cuda.cudnn_sdp_enabled()
    with tempfile.TemporaryDirectory(prefix=f"{part}-", dir=arguments.work) as folder:
        home = arguments.results / "gpu-quality" if part == "quality" else Path(folder) / "runs"
        os.environ.setdefault("GEMMA4VEC_HOME", str(home))
        try:
            measure(part, arguments, chosen.name, Path(folder), found)
        except Exception as error:
            found.end(error=said_of(error, 500))
            raise
    found.end()
    return 0


def measure(part: str, arguments: argparse.Namespace, device: str, folder: Path, found: Found) -> None:
    """Put what one part finds into `found`, bit by bit."""
    from benchmarks.gpu.models import e2b_base, small_e2b_base, tiny_base, write_rows
    from gemma4vec.model.bases.resolve import resolve_base

    base = resolve_base(arguments.base).path
    if part == "quality":
        from benchmarks.gpu.quality import clean_sources, dev_suites, quality, quality_recipe

        suites = dev_suites(arguments.data, arguments.suites)
        sources = clean_sources(arguments.data, folder / "clean", found)
        changes = ["stages.0.layout.compile=false"] if arguments.smoke or arguments.eager else []
        if arguments.smoke:
            changes += ["stages.0.batch.rows=4", "stages.0.layout.tokens_per_forward=512"]
        budget = {"steps": 2} if arguments.smoke else {"minutes": arguments.minutes}
        recipe = quality_recipe(str(base), sources, budget, arguments.recipe, changes)
        return quality(recipe, suites, folder / "quality", found)
    hard_negatives = 1 if part == "correctness" else arguments.hard_negatives
    count = 40 if arguments.smoke else 8 if part == "correctness" else 6000
    rows = write_rows(folder / "rows.jsonl", arguments.data, count, hard_negatives)
    if part == "correctness":
        from benchmarks.gpu.correct import correctness
        from gemma4vec.data.loading.load_rows import load_sources
        from gemma4vec.recipe.sources import source_of

        loaded = list(load_sources((source_of(name="rows", path=str(rows)),)).rows)[:8]
        bases = {"tiny": tiny_base(base, folder / "tiny"), "gemma-4": small_e2b_base(base, folder / "gemma-4")}
        bases |= {} if arguments.smoke else {"270m": base}
        return correctness(bases, loaded, device, found, compiled=not arguments.eager)
    kind, size = part.split("-")
    large = size == "e2b"
    if large:
        made = (arguments.work or folder) / "e2b"  # ten gigabytes: the first part that needs them makes them
        base = small_e2b_base(base, made) if arguments.smoke else e2b_base(base, made, device)
    from benchmarks.gpu.speed import encoding, training

    if kind == "encoding":
        return encoding(base, rows, arguments, folder, found, large=large)
    return training(base, rows, arguments, folder, found, large=large)


if __name__ == "__main__":
    as_program(main)
