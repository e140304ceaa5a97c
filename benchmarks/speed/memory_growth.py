"""Peak memory of training against rows in a batch and texts in a micro-batch: ours and sentence-transformers' trainer.

    python -m benchmarks.speed.memory_growth --base bundled:smollm2-135m --rows 8 32 128 --micro-rows 8 32

Each setting trains a few steps in a process of its own, whose resident memory is watched from when the model stands
there until the last step: the peak, and what training added to what was held before. Two ways on either side: plain
(every activation of a batch is kept; ours in micro-batches, theirs whole columns) and GradCache (ours
`layout.grad_cache`, theirs CachedMultipleNegativesRankingLoss) with so many texts in a micro-batch; ours counts tokens,
so `--micro-rows` times `--tokens` of them. Both have the same base, adapters, rows and truncation; nothing is compiled.
Settings that were measured are kept; a run that was stopped goes on with the next one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from benchmarks.shared.saved_measurements import SavedMeasurements
from benchmarks.speed.training_speed import PLAIN, QUICKSTART, chosen_rows
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]
MIB = 2**20
OURS, THEIRS = "ours", "sentence-transformers"


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        side, rows, micro = arguments.child
        print(json.dumps(one_setting(side, int(rows), int(micro) or None, arguments)))
        return
    about = {
        name: str(getattr(arguments, name)) for name in ("base", "data", "tokens", "hard_negatives", "steps", "set")
    }
    kept = SavedMeasurements("memory_growth", about, fresh=arguments.fresh)
    found = [
        kept.take(setting_name(side, rows, micro), lambda s=side, r=rows, m=micro: in_own_process(s, r, m))  # type: ignore[misc]
        for rows in arguments.rows
        for micro in (0, *(size for size in arguments.micro_rows if size < rows))
        for side in (OURS, THEIRS)
    ]
    growth = summarised(found)
    report(found, growth)
    settings = about | {"data": Path(about["data"]).name if arguments.data else "pycode"}
    write_result("memory_growth", {"settings": settings, "measured": found, "growth": growth}, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:smollm2-135m")
    parser.add_argument("--data", type=Path, help="JSONL of rows (default: the quickstart's, which is pycode)")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32, 128], help="rows in a batch")
    parser.add_argument(
        "--micro-rows", type=int, nargs="*", default=[8, 32], help="texts in a micro-batch of GradCache"
    )
    parser.add_argument("--tokens", type=int, default=64, help="cut of every text")
    parser.add_argument("--hard-negatives", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2, help="of each setting")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override in the recipe")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "ROWS", "MICRO"), help=argparse.SUPPRESS)
    return parser.parse_args()


def setting_name(side: str, rows: int, micro: int) -> str:
    """For people and for what is kept."""
    return f"{side}, {rows} rows, {f'GradCache of {micro} texts' if micro else 'plain'}"


def in_own_process(side: str, rows: int, micro: int) -> dict[str, Any]:
    """One setting: a process's peak cannot be told apart from that of what it did before."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.speed.memory_growth",
        *sys.argv[1:],
        "--child",
        side,
        str(rows),
        str(micro),
    ]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(
        f"{setting_name(side, rows, micro)}: peak {found['peak_bytes'] / MIB:,.0f} MiB, of them training "
        f"{found['training_bytes'] / MIB:,.0f}; {found['seconds_per_step']:.1f} s a step"
    )
    return found


def recipe_of(arguments: argparse.Namespace, rows: int, micro: int | None) -> Recipe:
    """The quickstart's model and optimizer on these rows."""
    changes = [
        f"model.base={arguments.base}",
        f"stages.0.task.hard_negatives={arguments.hard_negatives}",
        PLAIN,
        f"stages.0.batch={{rows: {rows}, query_tokens: {arguments.tokens}, document_tokens: {arguments.tokens}}}",
        "stages.0.layout.compile=false",
        f"stages.0.layout.grad_cache={'true' if micro else 'false'}",
    ]
    if micro:
        changes += [f"stages.0.layout.tokens_per_forward={micro * arguments.tokens}"]
        changes += [f"stages.0.layout.row_tokens={min(128, micro * arguments.tokens)}"]
    if arguments.data:
        changes.append(f"stages.0.data=[{{name: rows, source: jsonl, path: {arguments.data.resolve()}}}]")
    return load_recipe(QUICKSTART, [*changes, *arguments.set])


def one_setting(side: str, rows: int, micro: int | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a few steps; memory before, at the peak, and what training added."""
    import torch

    from benchmarks.shared.our_trainer import build_ours
    from benchmarks.shared.peer_trainer import BlockClock, build_peer
    from gemma4vec.training.engine.process_memory import memory_now, peak_since_start, release_memory, start_peak

    recipe = recipe_of(arguments, rows, micro)
    base = resolve_base(recipe.model.base)
    count = arguments.steps + 1  # the peer's loader fetches one ahead
    data = chosen_rows(load_sources(recipe.stages[0].data).rows, recipe, count)
    with tempfile.TemporaryDirectory(prefix="memory-growth-") as folder:
        ours = build_ours(recipe, base, data, Path(folder), arguments.steps)
        facts: dict[str, Any] = {"dtype": str(ours.dtype), "device": ours.device}
        if side == OURS:
            ours.prepare()
            release_memory()
            held, watched = memory_now(), start_peak()
            seconds = ours.train(arguments.steps)
            facts["tokens"] = sum(ours.tokens)
        else:
            drawn = [batch.texts for batch in islice(ours.first_batches(), count)]
            precision: Any = "bf16" if ours.dtype == torch.bfloat16 else "fp32"
            peer = build_peer(
                recipe,
                base.path,
                ours.built,
                drawn,
                Path(folder),
                precision=precision,
                max_steps=arguments.steps,
                cached_rows=micro,
            )
            del ours  # the peer has copies of the adapters
            release_memory()
            clock = BlockClock(arguments.steps, 1, 0, lambda number: None)
            held, watched = memory_now(), start_peak()
            peer.train(clock)
            seconds = sum(clock.warm_up_seconds)
            facts["tokens"] = sum(peer.tokens[: arguments.steps])
        peak = peak_since_start()
    return facts | {
        "side": side,
        "rows": rows,
        "micro_rows": micro,
        "held_bytes": held,
        "peak_bytes": peak,
        "peak_is_of_training": watched,  # false: the system does not allow to watch anew, so it is of the whole process
        "training_bytes": max(0, peak - held),
        "seconds_per_step": seconds / arguments.steps,
    }


def summarised(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each way of each side: bytes that a row more adds, from the smallest to the largest batch."""
    growth = []
    for side in (OURS, THEIRS):
        for micro in sorted({one["micro_rows"] or 0 for one in found}):
            ones = [one for one in found if one["side"] == side and (one["micro_rows"] or 0) == micro]
            if len(ones) > 1:
                first, last = ones[0], ones[-1]
                added = (last["peak_bytes"] - first["peak_bytes"]) / (last["rows"] - first["rows"])
                growth.append(
                    {
                        "side": side,
                        "micro_rows": micro or None,
                        "rows": [first["rows"], last["rows"]],
                        "bytes_a_row": added,
                        "peak_ratio": last["peak_bytes"] / first["peak_bytes"],
                    }
                )
    return growth


def report(found: list[dict[str, Any]], growth: list[dict[str, Any]]) -> None:
    """Peaks side by side, then what a row adds."""
    peaks = {(one["side"], one["rows"], one["micro_rows"]): one["peak_bytes"] for one in found}
    for side, rows, micro in peaks:
        if side == OURS:
            ours, theirs = peaks[OURS, rows, micro], peaks[THEIRS, rows, micro]
            way = f"GradCache of {micro} texts" if micro else "plain"
            print(
                f"{rows:>5} rows, {way:<22} {ours / MIB:>8,.0f} MiB, theirs {theirs / MIB:>8,.0f} ({theirs / ours:.2f})"
            )
    for one in growth:
        way = f"GradCache of {one['micro_rows']} texts" if one["micro_rows"] else "plain"
        print(
            f"{one['side']}, {way}: {one['bytes_a_row'] / MIB:.2f} MiB a row more, peak times {one['peak_ratio']:.2f} "
            f"from {one['rows'][0]} to {one['rows'][1]} rows"
        )


if __name__ == "__main__":
    as_program(main)
