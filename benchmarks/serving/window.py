"""How fast the window answers: start of the command, the first page with many runs, and the lag of live events.

    python -m benchmarks.serving.window
    python -m benchmarks.serving.window --runs 10000

The home is made up: a ledger of that many runs with folders, recipes, and a score each. The command is started as a
process and asked over HTTP, as a browser does. "At once" is the first page when it is asked for in the moment that the
command answers; "first page" when it is asked for a second later, as a browser that has to start does; "page again"
the same page again. Beside wall time stands the processor time of the process, for machines where others work. The lag
is from the moment before a line is written into events.jsonl to its arrival in an open event stream.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import psutil

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.errors import WorkError
from gemma4vec.files import write_json
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import add
from gemma4vec.ledger.records import evaluation_record, run_record
from gemma4vec.ledger.run_folder import RunFolder

STAGE = "- name: stage{0}\n  budget: {{steps: 100}}\n  data: [{{name: pairs, path: pairs.jsonl}}]\n"
RECIPE = "name: run\nmodel:\n  base: bundled:gemma-3-270m\n  readout: mean\nstages:\n" + "".join(
    STAGE.format(number) for number in range(3)
)
PROMISED_MS = 150.0  # of the first page with 1,000 runs
PROMISED_START = 1.0  # seconds
PROMISED_LAG = 1.0  # seconds
BROWSER_SECONDS = 1.0  # that a browser needs to start
LONGEST_WAIT = 30.0  # seconds


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="gemma4vec-ui-bench-") as folder:
        home = Path(folder) / "runs"
        say(f"making a home with {arguments.runs:,} runs")
        run = make_home(home, arguments.runs)
        start: list[float] = []
        at_once: list[float] = []
        first: list[float] = []
        start_cpu: list[float] = []
        first_cpu: list[float] = []
        again: list[float] = []
        lag: list[float] = []
        for repeat in range(arguments.repeats):
            with window(home) as (opener, base, _, _):
                at_once.append(1000 * timed(opener, f"{base}/"))
            with window(home) as (opener, base, seconds, process):
                start.append(seconds)
                start_cpu.append(cpu_seconds(process))
                wait_until_idle(process)
                before = cpu_seconds(process)
                first.append(1000 * timed(opener, f"{base}/"))
                first_cpu.append(1000 * (cpu_seconds(process) - before))
                again += [1000 * timed(opener, f"{base}/") for _ in range(5)]
                lag += measure_lag(opener, base, run)
            say(f"repeat {repeat + 1}: start {start[-1]:.2f} s, first page {first[-1]:.0f} ms")
    measured: dict[str, Any] = {
        "runs": arguments.runs,
        "load_average": os.getloadavg()[0],
        "start_seconds": summary(start),
        "start_cpu_seconds": summary(start_cpu),
        "at_once_ms": summary(at_once),
        "first_page_cpu_ms": summary(first_cpu),
        "first_page_ms": summary(first),
        "page_ms": summary(again),
        "event_lag_seconds": summary(lag),
    }
    print(f"start of the command   {shown(measured['start_seconds'], 2)} s")
    print(f"at once                {shown(measured['at_once_ms'])} ms, {arguments.runs:,} runs")
    print(f"first page             {shown(measured['first_page_ms'])} ms, {arguments.runs:,} runs")
    print(f"processor time         start {shown(measured['start_cpu_seconds'], 2)} s")
    print(f"                       first page {shown(measured['first_page_cpu_ms'])} ms")
    print(f"page again             {shown(measured['page_ms'])} ms")
    print(f"lag of an event        {shown(measured['event_lag_seconds'], 2)} s")
    write_result(f"window-{arguments.runs}-runs", measured, arguments.results)
    kept = [
        measured["start_seconds"]["median"] < PROMISED_START,
        measured["event_lag_seconds"]["median"] < PROMISED_LAG,
        arguments.runs > 1000 or measured["first_page_ms"]["median"] < PROMISED_MS,
    ]
    return 0 if all(kept) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="runs in the ledger")
    parser.add_argument("--repeats", type=int, default=5, help="processes that are started")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.repeats < 1:
        parser.error("--runs and --repeats must be 1 or more")
    return arguments


def make_home(home: Path, count: int) -> RunFolder:
    """A ledger of `count` finished runs, each with a score; returns the last one."""
    records: list[Record] = []
    for number in range(count):
        run = RunFolder(home / f"20260101-{number:06d}-run-{number % 65536:04x}")
        run.path.mkdir(parents=True)
        (run.path / "recipe.yaml").write_text(RECIPE)
        about = {"git": {"commit": "0" * 40}, "versions": {f"package{k}": "1.0" for k in range(20)}}
        created = f"2026-01-{1 + number % 28:02d}T{number % 24:02d}:00:00+00:00"
        manifest = {"run_id": run.path.name, "name": f"run {number}", "created": created, "status": "finished"}
        manifest |= {"recipe_id": f"{number % 97:016x}", "seed": number % 5, "hypothesis": "It helps."}
        manifest |= {"environment": {**about, "machine": {"cpu": "x", "cores": 2}}}
        write_json(run.path / "manifest.json", manifest)
        run.event("finished", seconds=60.0 + number, tokens=1000)
        folder = run.evaluation("trained", "dev")
        folder.mkdir(parents=True)
        settings = {
            "model_fingerprint": run.path.name,
            "suite": {"fingerprint": "f" * 64, "role": "dev"},
            "created": created,
        }
        settings |= {"look": run.path.name, "run": {"run_id": run.path.name, "recipe_id": manifest["recipe_id"]}}
        mean = {"ndcg@10": number / count}
        write_json(folder / "metrics.json", {"model": "trained", "suite": "dev", "mean": mean, "settings": settings})
        records += [run_record(run), *evaluation_record(folder)]
    add(home, records)
    return run


@contextmanager
def window(home: Path) -> Iterator[tuple[urllib.request.OpenerDirector, str, float, psutil.Process]]:
    """A running window: an opener that it has let in, its address, the seconds until it answered, its process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gemma4vec", "ui", "--no-browser", "--home", str(home)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        if found is None:
            raise WorkError(f"the window did not start: {process.stderr.read()[-300:]}")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        opener.open(found[0]).read()
        yield opener, found[0].partition("/open")[0], time.perf_counter() - began, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time so far, which says something on a busy machine too."""
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_until_idle(process: psutil.Process) -> None:
    """Wait as long as a browser needs to start, and on a busy machine until the process has read its ledger."""
    began, before = time.perf_counter(), -1.0
    while time.perf_counter() - began < LONGEST_WAIT:
        time.sleep(BROWSER_SECONDS)
        now = cpu_seconds(process)
        if now - before < 0.02:
            return
        before = now


def timed(opener: urllib.request.OpenerDirector, address: str) -> float:
    """Seconds of one request until its last byte."""
    began = time.perf_counter()
    opener.open(address).read()
    return time.perf_counter() - began


def measure_lag(opener: urllib.request.OpenerDirector, base: str, run: RunFolder, count: int = 5) -> list[float]:
    """Seconds from writing an event to its arrival in the stream."""
    place = (run.path / "events.jsonl").stat().st_size
    found = []
    with opener.open(f"{base}/api/runs/{run.path.name}/events?from={place}") as stream:
        stream.readline()
        for step in range(count):
            began = time.perf_counter()
            run.event("step", step=step, loss=1.0)
            while f'"step": {step}'.encode() not in stream.readline():
                pass
            found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    as_program(main)
