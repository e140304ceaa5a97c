"""How near training and encoding come to what this machine can do, and where the rest of the time goes.

    python -m benchmarks.speed.roofline [--recipe RECIPE] [--set KEY=VALUE]

Training is `gemma4vec bench` on the recipe's first stage, encoding is an `Embedder` of its base on the texts of its
source. Both are held against the rate of a large matrix product here and the rate of a large copy; operations are those
that the documents need (`training.engine.flops`). A share of 50% means that the same work at the rate of the
products alone would take half the time.
"""

import argparse
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, summary, write_result
from benchmarks.speed.training_speed import PLAIN, QUICKSTART
from gemma4vec.cli.bench import as_text
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.machine.rates import matmul_rate
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.bench.benchmark import MATRIX, bench
from gemma4vec.training.bench.time_split import split
from gemma4vec.training.engine.flops import document_flops


def main() -> None:
    arguments = parse_arguments()
    recipe = load_recipe(
        arguments.recipe,
        [
            PLAIN,
            f"stages.0.task.hard_negatives={arguments.hard_negatives}",
            "stages.0.budget.minutes=60",
            *arguments.set,
        ],
    )
    training = bench(recipe, 0, arguments.seconds)
    print(as_text(training))
    encoding = measure_encoding(recipe, arguments)
    share, speed = encoding["share"], encoding["tokens_per_second"]["median"]
    print(f"encoding: {speed:,.0f} real tokens/s, {share:.0%} of the roofline")
    print("  time        " + ", ".join(f"{part} {value:.0%}" for part, value in encoding["time"].items()))
    measured = {"training": training, "encoding": encoding, "recipe": recipe.model_dump(mode="json")}
    write_result(f"roofline-{arguments.hard_negatives}-hard-negatives", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=QUICKSTART)
    parser.add_argument("--hard-negatives", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=45.0, help="of training")
    parser.add_argument("--documents", type=int, default=1000, help="that are encoded")
    parser.add_argument("--repeats", type=int, default=5, help="encodings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override in the recipe")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def measure_encoding(recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Any]:
    """The base with the recipe's readout on documents of its source, tokenising included."""
    device = choose_device().name
    dtype = choose_dtype(device, recipe.model.dtype).dtype
    model = recipe.model.model_copy(update={"lora": None})
    built = build(model, resolve_base(model.base).path, dtype=dtype, device=device)
    embedder = Embedder(built, name="base", fingerprint="base", max_tokens=model.max_tokens)
    embedder.compiles_from = 0
    rows = load_sources(recipe.stages[0].data).rows
    texts = [document for row in islice(rows, arguments.documents) for document in row.pos][: arguments.documents]
    prompted = [built.prompts.for_document(document) for document in texts]
    tokens = sum(one.length for one in built.read(prompted, model.max_tokens))
    seen: list[PackedBatch] = []
    watched = built.encoder.register_forward_pre_hook(lambda _, given: seen.extend(given[0]))
    say(f"encoding {len(texts):,} documents, {tokens:,} real tokens")
    embedder.encode_document(texts)
    watched.remove()
    needed = document_flops(built, seen).forward

    def encode() -> float:
        started = time.perf_counter()
        embedder.encode_document(texts)
        return time.perf_counter() - started

    seconds = [encode() for _ in range(arguments.repeats)]
    rate = matmul_rate(dtype, MATRIX[device], 0.5, device) * 1e9
    return {
        "documents": len(texts),
        "tokens": tokens,
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": built.encoder.backbone.compiled,
        "tokens_per_second": summary([tokens / taken for taken in seconds]),
        "needed_tflop": needed / 1e12,
        "matrix_products_tflops": rate / 1e12,
        "share": needed / rate / statistics.median(seconds),
        "time": split(encode),
    }


if __name__ == "__main__":
    as_program(main)
