"""How long until a training's first step is done, with nothing compiled before ("cold") and with all of it ("warm").

    python -m benchmarks.speed.training_start [--repeats 3]

`gemma4vec train` in a process of its own, with the quickstart's layout, readout and adapters and steps of few rows, so
that the step itself is short. Each repeat starts it twice with a new folder for compiled kernels and a new temporary
one, where torch keeps its compiled header: the second start finds what the first one left. Wall seconds are from the
start of the process to the end of its first step. Processor seconds are its own and those of the processes that it
started, compilers above all.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.errors import WorkError

RECIPE = """
name: start
model:
  base: {base}
  attention: causal
  readout: {{name: last_token}}
  prompts: code_retrieval
  lora: {{rank: 16, alpha: 32}}
stages:
  - name: contrast
    data: [{{name: rows, path: {rows}}}]
    task: {{temperature: 0.05, hard_negatives: 0}}
    batch: {{rows: 8, query_tokens: 32, document_tokens: 64}}
    layout: {{row_tokens: 128, tokens_per_forward: 2048}}
    optimizer: {{learning_rate: 5.0e-4, warmup_steps: 8}}
    budget: {{steps: 1000}}
"""
VERBS, THINGS = ("read", "write", "sort", "open", "close"), ("file", "tree", "graph", "list", "line", "key", "row")
PARTS = ("wall", "own", "children")
_POLL_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    arguments = parse_arguments()
    seconds: dict[str, dict[str, list[float]]] = {kind: {part: [] for part in PARTS} for kind in ("cold", "warm")}
    losses: list[float] = []
    for repeat in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            recipe = write_recipe(Path(folder), arguments.base)
            for kind, found in seconds.items():
                taken, loss = first_step(recipe, Path(folder), kind, arguments.src)
                losses.append(loss)
                for part in PARTS:
                    found[part].append(taken[part])
                say(f"repeat {repeat + 1}, {kind}: " + ", ".join(f"{part} {taken[part]:.1f} s" for part in PARTS))
    measured: dict[str, Any] = {
        "unit": "seconds from the start of the process to the end of its first step",
        "how": "new processes; wall, and processor seconds of the process and of those that it started",
        "base": arguments.base,
        "losses": losses,
        "seconds": {kind: {part: summary(values) for part, values in found.items()} for kind, found in seconds.items()},
    }
    for kind, parts in measured["seconds"].items():
        print(f"{kind}: " + ", ".join(f"{part} {shown(parts[part], 1)} s" for part in PARTS))
    write_result("training_start", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--src", type=Path, help="sources of another checkout, to measure these instead")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be 1 or more")
    return arguments


def write_recipe(folder: Path, base: str) -> Path:
    """Write rows and a recipe that trains on them."""
    rows, recipe = folder / "rows.jsonl", folder / "recipe.yaml"
    with rows.open("w", encoding="utf-8") as file:
        for number in range(64):
            query = f"{VERBS[number % len(VERBS)]} the {THINGS[number % len(THINGS)]} {number}"
            document = f"def {query.replace(' ', '_')}(name): return name " + "and then the next line " * (number % 5)
            file.write(json.dumps({"query": query, "pos": [document]}) + "\n")
    recipe.write_text(RECIPE.format(base=base, rows=rows), encoding="utf-8")
    return recipe


def first_step(recipe: Path, folder: Path, kind: str, src: Path | None) -> tuple[dict[str, float], float]:
    """Seconds of a process until its first step is done, by `PARTS`, and the step's loss.

    Raises:
        WorkError: it ended before, or its layers run uncompiled.
    """
    out, kept, log = folder / kind, folder / "kept", folder / f"{kind}.log"
    (kept / "tmp").mkdir(parents=True, exist_ok=True)
    around = dict(
        os.environ, HF_HUB_OFFLINE="1", TMPDIR=str(kept / "tmp"), TORCHINDUCTOR_CACHE_DIR=str(kept / "kernels")
    )
    if src is not None:
        around["PYTHONPATH"] = str(src.absolute())
    started = time.time()
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemma4vec", "train", str(recipe), "--out", str(out)],
            env=around,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
    try:
        while not (events := read_events(out)).get("step"):
            if process.poll() is not None:
                last = (log.read_text(encoding="utf-8").strip() or "no message").splitlines()[-1]
                raise WorkError(f"the training ended before its first step: {last}")
            time.sleep(_POLL_SECONDS)
        own, children = processor_seconds(process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not events["prepared"]["compile"]:
        raise WorkError(f"layers run uncompiled: {events['prepared']['compile_reason']}")
    step = events["step"]
    return {"wall": float(step["time"]) - started, "own": own, "children": children}, float(step["loss"])


def read_events(out: Path) -> dict[str, dict[str, Any]]:
    """The first event of each kind that the run in `out` has written so far."""
    found: dict[str, dict[str, Any]] = {}
    for file in out.glob("*/events.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                event = json.loads(line)
                found.setdefault(event["event"], event)
    return found


def processor_seconds(pid: int) -> tuple[float, float]:
    """User and system seconds of a process, and of the processes that it started, ended or not."""
    whole = [fields for file in Path("/proc").glob("[0-9]*/stat") if (fields := read_stat(file)) is not None]
    (own,) = (fields for number, fields in whole if number == pid)
    running = sum(sum(fields[11:15]) for _, fields in whole if fields[1] == pid)
    return sum(own[11:13]) / _TICKS, (sum(own[13:15]) + running) / _TICKS


def read_stat(file: Path) -> tuple[int, list[int]] | None:
    """Number of a process, and its fields from the state on (proc_pid_stat(5), the state as 0); None: it has ended."""
    try:
        name, _, rest = file.read_text(encoding="utf-8", errors="replace").rpartition(")")
    except OSError:
        return None
    return int(name.split()[0]), [0, *(int(word) for word in rest.split()[1:])]


if __name__ == "__main__":
    as_program(main)
