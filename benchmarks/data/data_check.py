"""How long a check of training data takes, and whether it finds a known overlap.

    python -m benchmarks.data.data_check medquad.jsonl.gz medquad_liveqa --contained 435 450

Counts the suite's documents in which a training positive stands whole (`contained`), as `gemma4vec data check` does,
in a process that has done nothing before. Fails when the count is outside of `--contained` or it took longer than
`--seconds`.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.loading.resolve_names import resolve_sources, resolve_suites
from gemma4vec.data.quality.check import check_sources, rules
from gemma4vec.data.quality.overlap import NEAR


def main() -> int:
    arguments = parse_arguments()
    started = time.perf_counter()
    sources, suites = resolve_sources([arguments.train]), resolve_suites([arguments.suite])
    (report,) = check_sources(sources, suites)
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {
        suite.name: {"found": one.table(), "touched_queries": len(touched), "documents": len(suite.documents)}
        for suite, one, touched in zip(suites, report.found, report.touched, strict=True)
    }
    contained = [
        cell["items"]["contained"]
        for one in found.values()
        for cell in one["found"]
        if (cell["field"], cell["side"]) == ("positive", "document")
    ]
    low, high = arguments.contained
    good = low <= sum(contained) <= high and seconds <= arguments.seconds
    say(f"{sum(contained)} documents contain a positive (expected {low} to {high}), {seconds:.1f} s; {verdict(good)}")
    measured = {"rows": len(report.rows), "suites": found, "flaws": report.flaws, "cut": report.cut}
    bounds = {"contained": [low, high], "seconds": arguments.seconds}
    write_result(
        "data_check", {**measured, "rules": rules(NEAR), "seconds": seconds, "bounds": bounds}, arguments.results
    )
    return 0 if good else 1


def verdict(good: bool) -> str:
    return "as promised" if good else "NOT as promised"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="what gemma4vec data check takes: a file of rows, a recipe, a run")
    parser.add_argument("suite", help="a suite")
    parser.add_argument("--contained", type=int, nargs=2, default=[0, 10**9], metavar=("LOW", "HIGH"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


if __name__ == "__main__":
    as_program(main)
