"""What an open page costs a training: tokens a second with the page of its run open in a browser, and closed, in turn.

    python -m benchmarks.serving.live_page [--intervals 20] [--steps 10]

It needs the extra `uitest` and Debian's chromium. One training of the bundled Gemma 3 270M (uncompiled, steps of
about a second) goes on in a process of its own; `gemma4vec ui` and an empty browser run beside it all the time. For
every other interval of steps the browser shows the page of the run, which draws each event. So both kinds of interval
have the same neighbors and the same process. The ratio is between an open interval and the mean of the closed ones
around it.

Beside it stands what the window and the browser take of the processors while the page is open, beyond what they take
while it is closed, as a share of the whole machine: it says something on a busy machine too.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving.window import window
from benchmarks.shared.browser import find_browser, open_browser
from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from benchmarks.speed.training_start import write_recipe
from gemma4vec.errors import WorkError
from gemma4vec.ledger.run_folder import RunFolder, list_runs

PROMISED = 0.01  # of a training's speed
WARM_STEPS = 5
CHANGES = (
    "stages.0.layout.compile=false",
    "stages.0.batch.rows=4",
    "stages.0.optimizer.learning_rate=1e-5",
)
POLL_SECONDS, PATIENCE_SECONDS = 0.05, 300.0


def main() -> int:
    arguments = parse_arguments()
    find_browser()  # what is missing is said at once
    with tempfile.TemporaryDirectory(prefix="gemma4vec-live-") as folder:
        home = Path(folder) / "runs"
        home.mkdir()
        words = ["train", str(write_recipe(Path(folder), arguments.base)), *CHANGES, "--out", str(home)]
        with (Path(folder) / "log").open("wb") as log:
            training = subprocess.Popen([sys.executable, "-m", "gemma4vec", *words], stdout=log, stderr=log)
        try:
            with window(home) as (opener, base, _, server), open_browser(opener, base) as (_, context):
                page = context.new_page()
                run = wait_for_run(home, training)
                steps = wait_for_steps(run, WARM_STEPS, training)
                speeds: list[float] = []
                taken: list[float] = []
                for interval in range(arguments.intervals + 1):  # closed, open, closed, ..., closed
                    page.goto(f"{base}/runs/{run.run_id}" if interval % 2 else "about:blank")
                    first, began, before = steps[-1], time.perf_counter(), cpu_of(server)
                    steps = wait_for_steps(run, len(steps) + arguments.steps, training)
                    whole = time.perf_counter() - began
                    taken.append((cpu_of(server) - before) / whole / (os.cpu_count() or 1))
                    last = steps[-1]
                    speeds.append((last["tokens"] - first["tokens"]) / (last["time"] - first["time"]))
                    kind = "open" if interval % 2 else "closed"
                    say(f"{kind}: {speeds[-1]:.1f} tokens/s, window and browser {taken[-1]:.2%} of the machine")
        finally:
            training.kill()
            training.wait()
    ratios = [speeds[at] / statistics.fmean((speeds[at - 1], speeds[at + 1])) for at in range(1, len(speeds), 2)]
    share = statistics.median(taken[1::2]) - statistics.median(taken[0::2])
    print(f"speed with the page open, of that with it closed: {shown(summary(ratios), 3)}")
    print(f"processors that the page takes: {share:.2%} of the machine")
    write_result(
        "live_page",
        {
            "unit": "speed with the page open over speed with it closed, in tokens a second",
            "ratio": summary(ratios),
            "share_of_machine": share,
            "tokens_per_second": speeds,
            "taken": taken,
            "steps_an_interval": arguments.steps,
            "load_average": os.getloadavg()[0],
        },
        arguments.results,
    )
    return int(share >= PROMISED)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--intervals", type=int, default=20, help="an even number; every other one has the page open")
    parser.add_argument("--steps", type=int, default=10, help="of an interval")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.intervals < 2 or arguments.intervals % 2 or arguments.steps < 1:
        parser.error("--intervals must be even and 2 or more, --steps 1 or more")
    return arguments


def wait_for_run(home: Path, training: subprocess.Popen[bytes]) -> RunFolder:
    """Return the run's folder as soon as it exists."""
    while not (runs := list_runs(home)):
        check_alive(training)
        time.sleep(POLL_SECONDS)
    return runs[0]


def wait_for_steps(run: RunFolder, count: int, training: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Return all step events as soon as there are `count`."""
    began = time.perf_counter()
    while len(found := run.events("step")) < count:
        check_alive(training)
        if time.perf_counter() - began > PATIENCE_SECONDS:
            raise WorkError(f"step {count} was not done after {PATIENCE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return found


def check_alive(training: subprocess.Popen[bytes]) -> None:
    if training.poll() is not None:
        raise WorkError(f"the training ended with exit code {training.returncode}")


def cpu_of(server: psutil.Process) -> float:
    """Processor seconds so far of the window and of all processes of the browser that this program started."""
    total = 0.0
    for process in (server, *psutil.Process().children(recursive=True)):
        try:
            name, times = process.name(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        if process.pid == server.pid or "chrom" in name:
            total += times.user + times.system
    return total


if __name__ == "__main__":
    as_program(main)
