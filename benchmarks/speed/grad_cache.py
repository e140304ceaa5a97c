"""What a large batch costs with GradCache: peak memory and seconds a row at 4,096 rows against 64, and the plain path.

    python -m benchmarks.speed.grad_cache --base bundled:smollm2-135m

Each setting is a process of its own that takes one training step (forward, backward, update) on made-up rows of texts
of at most 8 tokens, with EmbeddingGemma's terms (InfoNCE with hardness and GOR, over four Matryoshka prefixes),
uncompiled. At 64 rows the second step is timed; a large batch is timed at once, since its first micro-batches are few
among many. Bounds: the peak of the large batch within 1.25 times that of the small one, in micro-batches of one size;
losses of the small batch, plain and cached, within 1e-5.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result

ROOT = Path(__file__).parents[2]
NEGATIVES, TOKENS, SMALL = 4, 8, 64
PEAK_BOUND, LOSS_BOUND = 1.25, 1e-5
WORDS = (
    "read write sort open close file tree graph list key name time line code path word set map node edge data table "
    "row page book door house road river stone bird fish horse hand head foot day night year week light sound color "
    "green white black north south east west"
)


def main() -> int:
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(one_step(arguments)))
        return 0
    found = {
        "plain": in_own_process(arguments, SMALL, False),
        "small": in_own_process(arguments, SMALL, True),
        "large": in_own_process(arguments, arguments.rows, True),
    }
    return report(arguments, found)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:smollm2-135m")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rows", type=int, default=4096, help="rows of the large batch")
    parser.add_argument("--tokens-per-forward", type=int, default=768)
    parser.add_argument("--last-layers", type=int, help="adapt the last layers only, to save time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--cached", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(arguments: argparse.Namespace, rows: int, cached: bool) -> dict[str, Any]:
    """One setting; a process's peak of memory cannot be told apart from that of what it did before."""
    words = ["--child", "--base", arguments.base, "--dtype", arguments.dtype, "--rows", str(rows)]
    words += ["--tokens-per-forward", str(arguments.tokens_per_forward)]
    words += ["--last-layers", str(arguments.last_layers)] if arguments.last_layers else []
    words += ["--cached"] if cached else []
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.grad_cache", *words],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    say(
        f"{rows:>6} rows {'GradCache' if cached else 'plain':<10} peak {found['peak_bytes'] / 2**20:,.0f} MiB, "
        f"{1e3 * found['seconds'] / rows:.1f} ms a row ({1e3 * found['loss_seconds'] / rows:.1f} of them the loss), "
        f"loss {found['loss']:.6f}, {found['micro_batches']} micro-batches"
    )
    return found


def one_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory, seconds and loss of one step."""

    from gemma4vec.machine.device import choose_device
    from gemma4vec.machine.dtype import choose_dtype
    from gemma4vec.model.bases.resolve import resolve_base
    from gemma4vec.model.encoder.build import build
    from gemma4vec.recipe import schema
    from gemma4vec.training.engine.optimizer import MasterAdamW
    from gemma4vec.training.engine.process_memory import keep_freed_memory, peak_memory_bytes
    from gemma4vec.training.tasks.contrastive import ContrastTask

    device = choose_device().name
    base = resolve_base(arguments.base)
    lora = schema.Lora(last_layers=arguments.last_layers)
    model = schema.Model(base=arguments.base, lora=lora, prompts="none", max_tokens=TOKENS)
    dtype = choose_dtype(device, arguments.dtype).dtype
    built = build(model, base.path, dtype=dtype, device=device)
    width = built.encoder.dimension
    prefixes = [width, width // 2, width // 4, width // 8]
    stage = schema.Stage.model_validate(
        {
            "data": [{"name": "made", "path": "made.jsonl"}],
            "task": {
                "hard_negatives": NEGATIVES,
                "terms": [
                    {"kind": "nce", "hardness": True, "matryoshka": prefixes},
                    {"kind": "gor", "matryoshka": prefixes},
                ],
            },
            "batch": {"rows": arguments.rows},
            "layout": {
                "row_tokens": 64,
                "tokens_per_forward": arguments.tokens_per_forward,
                "compile": False,
                "grad_cache": arguments.cached,
            },
            "budget": {"steps": 1},
        }
    )
    task = ContrastTask.make(stage, made_rows(arguments.rows), built, max_tokens=TOKENS, seed=0)
    optimizer = MasterAdamW(built.trainable(), stage.optimizer)
    built.encoder.train()
    keep_freed_memory()
    batch = next(task.batches())
    for _ in range(2 if arguments.rows <= SMALL else 1):
        started = time.perf_counter()
        loss = task.loss(built, batch)
        loss.value.backward()
        optimizer.step(0.0)
        value = loss.value.item()
        seconds = time.perf_counter() - started
    peak = peak_memory_bytes()
    return {
        "rows": arguments.rows,
        "cached": arguments.cached,
        "loss": value,
        "seconds": seconds,
        "loss_seconds": loss_seconds(task, arguments.rows, width, device),
        "peak_bytes": peak,
        "tokens": loss.tokens,
        "micro_batches": len(batch.layouts),
        "dimensions": width,
    }


def loss_seconds(task: Any, rows: int, width: int, device: str) -> float:
    """What of a step the terms take, forwards and backwards, on vectors that are there."""
    import torch
    from torch.nn import functional

    from gemma4vec.objective.false_negatives import TextHashes
    from gemma4vec.training.terms.base import Vectors

    def unit(*shape: int) -> torch.Tensor:
        return functional.normalize(torch.randn(*shape, width, device=device), dim=-1).requires_grad_()

    keys = torch.arange(rows * (2 + NEGATIVES), device=device)
    vectors = Vectors(unit(rows), unit(rows), unit(rows, NEGATIVES), {})
    known = TextHashes(keys[:rows], keys[rows : 2 * rows], keys[2 * rows :].view(rows, NEGATIVES))
    started = time.perf_counter()
    task.objective.weighted_sum(task.objective.values(vectors, known)).backward()  # type: ignore[no-untyped-call]
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def made_rows(count: int) -> list[Any]:
    """Rows of three words each; no two of the first 125,000 texts are the same."""
    from gemma4vec.data.rows.rows import Row
    from gemma4vec.text.prompts import Document

    words = WORDS.split()

    def text(number: int) -> str:
        return " ".join(words[number // size % len(words)] for size in (len(words) ** 2, len(words), 1))

    rows = []
    for first in range(0, count * (2 + NEGATIVES), 2 + NEGATIVES):
        query, positive, *negatives = (text(7919 * n % len(words) ** 3) for n in range(first, first + 2 + NEGATIVES))
        rows.append(Row(query, [Document(positive)], [Document(negative) for negative in negatives]))
    return rows


def report(arguments: argparse.Namespace, found: dict[str, dict[str, Any]]) -> int:
    """The bounds, and the result file."""
    small, large = found["small"], found["large"]
    peak = large["peak_bytes"] / small["peak_bytes"]
    difference = abs(found["plain"]["loss"] - small["loss"])
    per_row = {name: setting["seconds"] / setting["rows"] for name, setting in found.items()}
    without_loss = {name: (x["seconds"] - x["loss_seconds"]) / x["rows"] for name, x in found.items()}
    ratios = {
        "peak": peak,
        "seconds_a_row": per_row["large"] / per_row["small"],
        "seconds_a_row_without_the_loss": without_loss["large"] / without_loss["small"],
        "seconds_a_row_of_the_small_over_plain": per_row["small"] / per_row["plain"],
    }
    fine = peak <= PEAK_BOUND and difference <= LOSS_BOUND
    say(f"peak of {large['rows']} rows: {peak:.3f} times that of {SMALL} (bound {PEAK_BOUND})")
    say(f"loss of {SMALL} rows, plain and cached: {difference:.1e} apart (bound {LOSS_BOUND:.0e})")
    say("seconds a row: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if name != "peak"))
    bounds = {"peak": PEAK_BOUND, "loss": LOSS_BOUND}
    settings = {name: getattr(arguments, name) for name in ("base", "dtype", "tokens_per_forward", "last_layers")}
    measured = {"settings": settings, "bounds": bounds, "steps": found, "ratios": ratios, "loss_difference": difference}
    write_result("grad_cache", measured | {"within_bounds": fine}, arguments.results)
    return 0 if fine else 1


if __name__ == "__main__":
    as_program(main)
