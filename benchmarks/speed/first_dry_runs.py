"""How long the first dry run of each shipped recipe takes, on the bundled base, from an empty home and an empty cache.

    python -m benchmarks.speed.first_dry_runs                                  all of them, once
    python -m benchmarks.speed.first_dry_runs --recipes f2llm/qwen3_0_6b --repeats 3

Bound: 20 seconds of wall time on two idle cores. Recipes that read a user's files get tiny ones of the published kinds,
and small suites (both from tests/helpers). Those that start from a trained model are left out.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.rows.rows import Row
from gemma4vec.model.bases.bundled import BUNDLED, description
from gemma4vec.recipe.find import shipped_recipes
from gemma4vec.text.prompts import Document

ROOT = Path(__file__).parents[2]
BASE, BOUND = "gemma-3-270m", 20.0
SUITES = ("cranfield", "cosqa", "xquadr_de", "scifact", "dbpedia_entity_5k")
NEED_A_MODEL = ("embeddinggemma/quantize", "gemma_embed/query_decoder")


def main() -> int:
    arguments = parse_arguments()
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for name in arguments.recipes:
            times = [dry_run(name, Path(folder)) for _ in range(arguments.repeats)]
            wrong = [one["error"] for one in times if "error" in one]
            if wrong:
                failed[name] = wrong[0]
                say(f"{name}: {wrong[0]}")
                continue
            found[name] = {key: median(one[key] for one in times) for key in ("wall_seconds", "cpu_seconds")}
            found[name] |= {"stages": times[0]["stages"], "load_before": [one["load"] for one in times]}
            wall, cpu = found[name]["wall_seconds"], found[name]["cpu_seconds"]
            say(f"{name}: {wall:.1f} s, {cpu:.1f} CPU seconds" + (" (over the bound)" if wall > BOUND else ""))
    write_result(
        "first_dry_runs",
        {
            "bound_seconds": BOUND,
            "repeats": arguments.repeats,
            "left_out": list(NEED_A_MODEL),
            "over_the_bound": [name for name, one in found.items() if one["wall_seconds"] > BOUND],
            "failed": failed,
            "recipes": found,
        },
        folder=arguments.results,
    )
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure first dry runs of shipped recipes (see the top of the file).")
    names = [name for name in shipped_recipes() if name not in NEED_A_MODEL]
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="NAME", help="default: all")
    parser.add_argument("--repeats", type=int, default=1, help="dry runs of a recipe; the median counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    return parser.parse_args()


def write_files(folder: Path) -> None:
    """The files that recipes name and only a user has."""
    sys.path += [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "helpers" / "training")]
    from phase_files import write_phase_files
    from small_suite import write_small_suite
    from tokenizers import Tokenizer

    with description(BUNDLED[BASE]) as base:
        tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    rows = [Row(f"read the file number {n}", [Document(f"def read_{n}(path): return open(path)")]) for n in range(600)]
    write_phase_files(folder, rows, ids_of=lambda text: list(tokenizer.encode(text).ids))
    for name in SUITES:
        write_small_suite(folder, name, extra=f" of {name}")


def dry_run(name: str, folder: Path) -> dict[str, Any]:
    """One dry run in an empty home: its seconds, or what it said."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {
            "GEMMA4VEC_HOME": f"{home}/home",
            "GEMMA4VEC_CACHE": f"{home}/cache",
            "PYTHONPATH": str(ROOT / "src"),
        }
        words = ["train", name, f"model.base=bundled:{BASE}", "--dry-run", "--json"]
        load, before, started = os.getloadavg()[0], _cpu_seconds(), time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "gemma4vec", *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        wall, cpu = time.perf_counter() - started, _cpu_seconds() - before
    if ended.returncode != 0:
        return {"error": (ended.stderr.strip().splitlines() or ["no word"])[-1]}
    return {"wall_seconds": wall, "cpu_seconds": cpu, "load": load, "stages": ended.stdout.count('"padding_by_layout"')}


def _cpu_seconds() -> float:
    """Of all children that have ended, and theirs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    as_program(main)
