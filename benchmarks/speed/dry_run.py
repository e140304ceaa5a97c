"""How near a dry run comes: its estimate against a measured short run of the same recipe.

    python -m benchmarks.speed.dry_run --settings plain checkpointing

Without --settings all are measured, one after the other, about four minutes each on two cores. The result file is
written after each, so a run that is stopped leaves what it has; the same command goes on with those that are missing
(`.dry_run-measured.json` beside the results holds them; --again measures anew). A setting that fails is reported, and
the others go on.

For each setting, child processes: `gemma4vec train RECIPE --dry-run --json` with an empty home and cache, whose wall
and processor seconds are recorded (bound: 20 seconds on two idle cores); where layers are compiled, the same with
`--measure-compiled`; then the training itself for a few steps, and a dry run that knows the training. Of the training
are compared: seconds per step (mean of the steps after the first two, which compile and warm up), tokens per step, the
number of steps, and the peak of resident memory at the end of training (the child's own). Of the whole run: its peak,
export included. A share of 1 is exact; the bound is 15% on either side.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.files import write_json
from gemma4vec.ledger.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "src/gemma4vec/pipeline/quickstart.yaml"
SKIPPED = 2
BOUND, SECONDS_BOUND = 0.15, 20.0
SMOLLM, LLAMA_PROMPTS = "model.base=bundled:smollm2-135m", "model.prompts=code_retrieval"
COMPILED, EAGER = "stages.0.layout.compile=true", "stages.0.layout.compile=false"
CHECKPOINTING = "stages.0.layout.gradient_checkpointing=true"
FOUR_NEGATIVES, EIGHT_ROWS = "stages.0.task.hard_negatives=4", "stages.0.batch.rows=8"
LAST_SIX = "model.lora.last_layers=6"
MASKED = "stages.0.task={kind: masked_next_token}"
SETTINGS: dict[str, list[str]] = {
    "plain": [COMPILED],
    "eager": [EAGER],
    "checkpointing": [COMPILED, CHECKPOINTING],
    "eager-checkpointing": [EAGER, CHECKPOINTING],
    "last-6-layers": [COMPILED, LAST_SIX],
    "four-negatives": [COMPILED, FOUR_NEGATIVES, EIGHT_ROWS],
    "padded": [EAGER, "stages.0.layout.kind=padded"],
    "smollm": [SMOLLM, COMPILED],
    "smollm-eager-last-6": [SMOLLM, EAGER, LAST_SIX],
    "smollm-checkpointing-four-negatives": [SMOLLM, COMPILED, CHECKPOINTING, FOUR_NEGATIVES, EIGHT_ROWS],
    "layer-mix": [COMPILED, "model.readout=layer_mix"],
    "masked-next-token": [COMPILED, "model.attention=bidirectional", "model.readout=mean", MASKED],
}
SHARES = ("seconds_per_step", "tokens_per_step", "steps", "peak_memory_gb", "peak_with_export_gb")


def main() -> int:
    arguments = parse_arguments()
    measured, failed = before(arguments), {}
    for name in arguments.settings:
        if name in measured:
            say(f"{name}: measured before; --again measures it anew")
            continue
        try:
            measured[name] = compare(name, arguments)
        except subprocess.CalledProcessError as error:
            failed[name] = f"exit code {error.returncode}"
            say(f"{name}: failed with {failed[name]}")
            continue
        except KeyboardInterrupt:
            say("stopped; the same command goes on")
            return 130
        write_json(state(arguments), {"asked": asked(arguments), "settings": measured})
        waiting = [other for other in arguments.settings if other not in measured]
        found = {
            "bound": BOUND,
            "seconds_bound": SECONDS_BOUND,
            "skipped_steps": SKIPPED,
            "settings": measured,
            "not_measured": waiting,
        }
        write_result("dry_run", found, arguments.results)
    report(measured)
    return 1 if failed else 0


def state(arguments: argparse.Namespace) -> Path:
    """Where what was measured waits for the rest."""
    folder: Path = arguments.results
    return folder / ".dry_run-measured.json"


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What measured settings depend on, besides their own overrides and the code."""
    return {"steps": arguments.steps, "rows": str(arguments.rows.resolve()) if arguments.rows else None}


def before(arguments: argparse.Namespace) -> dict[str, Any]:
    """What an earlier call with the same words measured."""
    if arguments.again or not state(arguments).is_file():
        return {}
    kept = json.loads(state(arguments).read_text(encoding="utf-8"))
    if kept.get("asked") != asked(arguments):
        return {}
    settings: dict[str, Any] = kept["settings"]
    return {
        name: found
        for name, found in settings.items()
        if found["overrides"] == SETTINGS.get(name) and "first_dry_run" in found
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of the measured run")
    parser.add_argument("--rows", type=Path, help="JSONL of rows (default: pycode)")
    parser.add_argument("--again", action="store_true", help="forget what earlier calls measured")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.steps <= SKIPPED:
        parser.error(f"--steps must be more than {SKIPPED}")
    return arguments


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Estimate and train one setting."""
    words = [str(QUICKSTART), *SETTINGS[name], f"stages.0.budget={{steps: {arguments.steps}}}"]
    # Evaluations and checkpoints would be timed with the steps.
    words += ["stages.0.evaluation.checkpoint_seconds=3600"]
    if arguments.rows:
        words += [f"stages.0.data=[{{name: rows, source: jsonl, path: {arguments.rows.resolve()}}}]"]
    compiled = COMPILED in SETTINGS[name]
    with tempfile.TemporaryDirectory(prefix="dry-run-") as empty:
        clean = {"GEMMA4VEC_HOME": f"{empty}/home", "GEMMA4VEC_CACHE": f"{empty}/cache"}
        say(f"{name}: first dry run")
        before, started = processor_seconds(), time.perf_counter()
        dry_runs = {"first": json.loads(gemma4vec("train", *words, "--dry-run", "--json", **clean))}
        cost = {"wall_seconds": time.perf_counter() - started, "processor_seconds": processor_seconds() - before}
        say(f"{name}: {cost['wall_seconds']:.1f} s, {cost['processor_seconds']:.1f} s of the processor")
        if compiled:
            say(f"{name}: dry run, measured compiled")
            words_of_it = ("train", *words, "--dry-run", "--measure-compiled", "--json")
            dry_runs["compiled"] = json.loads(gemma4vec(*words_of_it, **clean))
    say(f"{name}: {arguments.steps} steps")
    with tempfile.TemporaryDirectory(prefix="dry-run-") as folder:
        found = json.loads(gemma4vec("train", *words, "--json", "--out", folder))
        run = RunFolder.open(Path(found["run"]))
        steps = run.events("step")
        finished = run.events("stage_finished")[0]
        whole_peak = run.events("finished")[0]["peak_memory_bytes"]
    dry_runs["training"] = json.loads(gemma4vec("train", *words, "--dry-run", "--json"))
    seconds = [step["tokens"] / step["tokens_per_second"] for step in own_tokens(steps)][SKIPPED:]
    per_token = statistics.fmean(seconds) / (sum(step["tokens"] for step in own_tokens(steps)[SKIPPED:]) / len(seconds))
    actual = {
        "seconds_per_step": per_token * finished["tokens"] / len(steps),
        "tokens_per_step": finished["tokens"] / len(steps),
        "steps": len(steps),
        "peak_memory_gb": finished["peak_memory_bytes"] / 1e9,
        "peak_with_export_gb": whole_peak / 1e9,
    }
    by_source = {source: estimate_of(found) for source, found in dry_runs.items()}
    shares = {source: {key: found[key] / actual[key] for key in actual} for source, found in by_source.items()}
    for source, found in shares.items():
        say(f"{name}, {source}: " + ", ".join(f"{key} {share:.3f}" for key, share in found.items()))
    return {
        "overrides": SETTINGS[name],
        "first_dry_run": cost,
        "estimated": by_source["first"],
        "measured": actual,
        "shares": shares["first"],
        "by_source": {
            source: {
                "time_from": dry_runs[source]["stages"][0]["time_from"],
                "estimated": by_source[source],
                "shares": shares[source],
            }
            for source in dry_runs
        },
        "seconds_of_steps": seconds,
        "memory_gb": dry_runs["first"]["stages"][0]["memory_gb"],
    }


def estimate_of(dry_run: dict[str, Any]) -> dict[str, float]:
    """What a dry run says of the compared values."""
    stage = dry_run["stages"][0]
    return {
        "seconds_per_step": stage["seconds_per_step"],
        "tokens_per_step": stage["tokens_per_step"],
        "steps": stage["steps"],
        "peak_memory_gb": stage["memory_gb"]["peak"],
        "peak_with_export_gb": dry_run["peak_memory_gb"],
    }


def processor_seconds() -> float:
    """Seconds of the processor that finished children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own_tokens(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Step events with the tokens of their own step; the events have all tokens so far."""
    before = [0, *(step["tokens"] for step in steps)]
    return [step | {"tokens": step["tokens"] - done} for step, done in zip(steps, before, strict=False)]


def gemma4vec(*words: str, **variables: str) -> str:
    """What a command of ours prints; its remarks go where ours go."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | variables
    done = subprocess.run(
        [sys.executable, "-m", "gemma4vec", *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def report(measured: dict[str, Any]) -> None:
    """A line for each setting, and whether all are within the bound."""
    if not measured:
        return
    say(f"{'estimated / measured':<38}" + "".join(f"{name:>22}" for name in SHARES))
    for setting, found in measured.items():
        say(f"{setting:<38}" + "".join(f"{found['shares'][name]:>22.3f}" for name in SHARES))
    worst = max(abs(share - 1.0) for found in measured.values() for share in found["shares"].values())
    slowest = max(found["first_dry_run"]["wall_seconds"] for found in measured.values())
    say(f"largest difference {worst:.1%}, bound {BOUND:.0%}; slowest {slowest:.1f} s, bound {SECONDS_BOUND:.0f} s")


if __name__ == "__main__":
    as_program(main)
