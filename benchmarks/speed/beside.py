"""What does evaluation beside a training cost the training?

    python -m benchmarks.speed.beside RECIPE --suite DIR [KEY=VALUE ...] [--steps 24] [--out FOLDER]

Trains the same recipe twice for so many steps in processes of their own: weights are kept four times, and once a
process beside evaluates them meanwhile. Prints the median seconds of a step of both (the first quarter, which
compiles and starts, is left out), when the scores were there, and how long an evaluation of the same weights takes
afterwards. Without anything else on the machine, or the figures mean nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result


def main() -> int:
    arguments = parse_arguments()
    measured: dict[str, Any] = {"recipe": arguments.recipe, "steps": arguments.steps}
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        for name, beside in (("alone", False), ("beside", True)):
            measured[name] = train(arguments, Path(folder) / name, beside)
            say(f"{name}: {measured[name]['seconds_a_step']:.3f} s a step (median)")
        measured["afterwards"] = evaluate(Path(measured["alone"]["run"]))
    for name in ("alone", "beside"):
        del measured[name]["run"]
    measured["slower"] = measured["beside"]["seconds_a_step"] / measured["alone"]["seconds_a_step"]
    found = measured["beside"]
    say(f"a step beside an evaluation takes {measured['slower']:.3f} times as long")
    say(f"{found['scores_before_the_end']} of {found['scores']} scores were there when the training ended")
    say(f"the same evaluation afterwards, with nothing else: {measured['afterwards']:.1f} s")
    write_result("beside", measured, arguments.results)
    return 0


def train(arguments: argparse.Namespace, out: Path, beside: bool) -> dict[str, Any]:
    """Train once; seconds of its steps, and when scores appeared."""
    changes = [
        *arguments.changes,
        f"stages.0.budget={{steps: {arguments.steps}}}",
        f"stages.0.evaluation={{suite: {json.dumps(str(arguments.suite))}, snapshot_at_shares: [0.25, 0.5, 0.75, 1.0], "
        f"background: {str(beside).lower()}}}",
    ]
    command = [sys.executable, "-m", "gemma4vec", "train", arguments.recipe, *changes, "--out", str(out), "--json"]
    done = subprocess.run(command, env=environment(out), stdout=subprocess.PIPE, text=True, check=True)
    run = Path(json.loads(done.stdout)["run"])
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    ended = next(event["time"] for event in events if event["event"] == "stage_finished")
    scores = sorted(file.stat().st_mtime for file in run.glob("evals/checkpoint-*/*/metrics.json"))
    seconds = [now["seconds"] - before["seconds"] for before, now in pairwise(steps)]
    return {
        "run": str(run),
        "seconds_a_step": statistics.median(seconds[len(seconds) // 4 :]),
        "scores": len(scores),
        "scores_before_the_end": sum(when <= ended for when in scores),
    }


def evaluate(run: Path) -> float:
    """Seconds of the same evaluations after the training."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "gemma4vec", "eval", str(run), "--checkpoints", "--no-cache", "--json"]
    subprocess.run(command, env=environment(run.parent), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def environment(out: Path) -> dict[str, str]:
    """Outputs and vectors of this measurement alone; compiled kernels stay where they are."""
    return os.environ | {"GEMMA4VEC_HOME": str(out), "GEMMA4VEC_VECTOR_CACHE_GB": "0"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--suite", type=Path, required=True, help="folder in BEIR layout")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--out", type=Path, help="folder for the two runs; they are removed afterwards")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    as_program(main)
