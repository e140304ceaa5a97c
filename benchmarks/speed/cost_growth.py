"""How cost grows: seconds a row of training by rows, hard negatives and length, of data by rows, of search by corpus.

    python -m benchmarks.speed.cost_growth --base bundled:smollm2-135m

Made-up data, so that one thing changes at a time: texts are random tokens of one length, vectors and words are random.

    data        seconds a row to open a JSONL of so many rows and draw one epoch of batches
    rows        seconds a row of a training step (forward, backward, update), by rows in the batch
    negatives   the same by hard negatives a row
    tokens      the same by tokens in each text
    search      seconds a query of exact search among so many vectors
    bm25        seconds a query of BM25 among so many documents, and a document to index them

Each number is the median of repeats after one that warms up. `exponent` is the slope between the first and the last
point of a curve on logarithmic axes: 0 where the cost of one does not grow, 1 where it is proportional. Points
that were measured are kept; a run that was stopped goes on with the next one.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, summary, write_result
from benchmarks.shared.saved_measurements import SavedMeasurements

CURVES = ("data", "rows", "negatives", "tokens", "search", "bm25")
ROWS, TOKENS, QUERIES = 16, 32, 256  # of the curves that change something else
Point = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    about = {name: getattr(arguments, name) for name in ("base", "dtype", "repeats", "compile", "dimension")}
    kept = SavedMeasurements("cost_growth", about, fresh=arguments.fresh)
    trainer = Trainer(arguments)
    measures: dict[str, Callable[[int], Point]] = {
        "data": lambda count: opened(count, arguments.repeats),
        "rows": lambda count: trainer.step(rows=count),
        "negatives": lambda count: trainer.step(negatives=count),
        "tokens": lambda count: trainer.step(tokens=count),
        "search": lambda count: searched(count, arguments.dimension, arguments.repeats),
        "bm25": lambda count: ranked(count, arguments.repeats),
    }
    curves: dict[str, Any] = {}
    for name in arguments.curves or CURVES:
        points = [
            {"at": at} | kept.take(f"{name} {at}", lambda a=at, m=measures[name]: m(a))  # type: ignore[misc]
            for at in sorted(getattr(arguments, name))
        ]
        curves[name] = {"points": points, "exponent": exponent(points)}
        report(name, curves[name])
    write_result("cost_growth", {"settings": about, "curves": curves}, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled:smollm2-135m")
    parser.add_argument("--dtype", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--curves", nargs="*", choices=CURVES, help="default: all")
    parser.add_argument("--data", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--negatives", type=int, nargs="+", default=[0, 1, 4, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--search", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--bm25", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=640, help="of the vectors that are searched")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile the layers (a minute or more once)")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def timed(work: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Seconds of a call, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return summary(seconds)


class Trainer:
    """Training steps of one model; it is loaded when the first is asked for."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.built: Any = None

    def load(self) -> None:
        """Base and adapters as a recipe makes them."""
        from gemma4vec.machine.device import choose_device
        from gemma4vec.machine.dtype import choose_dtype
        from gemma4vec.model.backbone.compilation import use_compile_cache
        from gemma4vec.model.bases.resolve import resolve_base
        from gemma4vec.model.encoder.build import build
        from gemma4vec.recipe import schema
        from gemma4vec.training.engine.process_memory import keep_freed_memory
        from gemma4vec.training.prepare_model import compile_for_training

        device = choose_device().name
        base = resolve_base(self.arguments.base)
        model = schema.Model(base=self.arguments.base, prompts="none", max_tokens=max(self.arguments.tokens))
        choice = choose_dtype(device, self.arguments.dtype)
        say(f"dtype: {choice.dtype} ({choice.reason})")
        self.built = build(model, base.path, dtype=choice.dtype, device=device)
        self.built.encoder.train()
        keep_freed_memory()
        if self.arguments.compile:
            use_compile_cache()
            compile_for_training(self.built.encoder.backbone)

    def step(self, rows: int = ROWS, negatives: int = 0, tokens: int = TOKENS) -> Point:
        """Seconds of a step on texts of `tokens` random tokens each."""
        from gemma4vec.recipe import schema
        from gemma4vec.training.engine.optimizer import MasterAdamW
        from gemma4vec.training.tasks.contrastive import ContrastTask

        if self.built is None:
            self.load()
        stage = schema.Stage.model_validate(
            {
                "data": [{"name": "made", "path": "made.jsonl"}],
                "task": {"hard_negatives": negatives},
                "batch": {"rows": rows},
                "layout": {"row_tokens": max(128, tokens), "compile": False, "grad_cache": False},
                "budget": {"steps": 1},
            }
        )
        vocabulary = self.built.encoder.backbone.config.vocab_size
        task = ContrastTask.make(
            stage, random_rows(rows, negatives, tokens, vocabulary), self.built, max_tokens=tokens, seed=0
        )
        optimizer = MasterAdamW(self.built.trainable(), stage.optimizer)
        batches = task.batches()

        def one() -> float:
            loss = task.loss(self.built, next(batches))
            loss.value.backward()
            optimizer.step(0.0)
            return float(loss.value.detach())  # which waits for a GPU

        seconds = timed(one, self.arguments.repeats)
        say(f"{rows} rows, {negatives} hard negatives, {tokens} tokens: {seconds['median']:.2f} s a step")
        every = rows * (2 + negatives) * tokens
        median = seconds["median"]
        return {"seconds_of_one": median / rows, "tokens_per_second": every / median, "seconds": seconds}


def random_rows(count: int, negatives: int, tokens: int, vocabulary: int) -> list[Any]:
    """Rows of texts of so many random tokens."""
    from gemma4vec.data.rows.rows import Row
    from gemma4vec.text.pretokenized import PretokenizedText
    from gemma4vec.text.prompts import Document

    ids = np.random.default_rng(0).integers(10, vocabulary - 10, (count, 2 + negatives, tokens))
    return [
        Row(
            PretokenizedText(row[0].tolist()),
            *([Document(PretokenizedText(t.tolist())) for t in x] for x in (row[1:2], row[2:])),
        )
        for row in ids
    ]


def made_texts(count: int, words: int) -> list[str]:
    """Texts of random words, of which few are frequent, as in a language."""
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / (place + 1) for place in range(len(vocabulary))]
    flat = chance.choices(vocabulary, weights, k=count * words)
    return [" ".join(flat[start : start + words]) for start in range(0, len(flat), words)]


def opened(count: int, repeats: int) -> Point:
    """A JSONL of queries of 8 words and positives of 60, opened as training does, and an epoch of it drawn."""
    from gemma4vec.data.batching.batches import batches
    from gemma4vec.data.loading.load_rows import load_sources
    from gemma4vec.data.rows.rows import Row, write_rows
    from gemma4vec.recipe.sources import source_of
    from gemma4vec.text.prompts import Document

    texts = made_texts(count, 68)
    with tempfile.TemporaryDirectory(prefix="cost-growth-") as folder:
        file = Path(folder) / "rows.jsonl"
        made = ((f"{n} {text}".split(" ", 9), text) for n, text in enumerate(texts))
        write_rows(file, (Row(" ".join(words[:9]), [Document(text)], []) for words, text in made))
        source = source_of(name="rows", source="jsonl", path=str(file))

        def work() -> None:
            rows = load_sources([source]).rows
            for _ in islice(batches(rows, size=32, hard_negatives=0, seed=0), len(rows) // 32):
                pass

        seconds = timed(work, repeats)
    return {"seconds_of_one": seconds["median"] / count, "seconds": seconds}


def searched(count: int, dimension: int, repeats: int) -> Point:
    """Exact search of random unit vectors."""
    from benchmarks.data.exact_search import unit
    from gemma4vec.retrieval.exact import search

    documents_MD = unit(np.random.default_rng(0), count, dimension)
    queries_ND = unit(np.random.default_rng(1), QUERIES, dimension)
    seconds = timed(lambda: search(queries_ND, documents_MD, 100), repeats)
    return {"seconds_of_one": seconds["median"] / QUERIES, "seconds": seconds}


def ranked(count: int, repeats: int) -> Point:
    """BM25 of random texts of 60 words; queries have 8 of a document's."""
    from gemma4vec.retrieval.bm25 import BM25Index
    from gemma4vec.retrieval.tokenize import tokenize_text

    texts = made_texts(count, 60)
    chance = random.Random(1)
    queries = [" ".join(chance.sample(chance.choice(texts).split(), 8)) for _ in range(QUERIES)]
    started = time.perf_counter()
    index = BM25Index.build(texts, tokenize=tokenize_text)
    built = time.perf_counter() - started
    seconds = timed(lambda: index.search(queries, min(100, count)), repeats)
    return {
        "seconds_of_one": seconds["median"] / QUERIES,
        "seconds_a_document_to_index": built / count,
        "seconds": seconds,
    }


def exponent(points: Sequence[Point]) -> float | None:
    """Slope of what one costs between the first and the last point that are above 0, on logarithmic axes."""
    ends = [point for point in points if point["at"] > 0]
    if len(ends) < 2:
        return None
    first, last = ends[0], ends[-1]
    return math.log(last["seconds_of_one"] / first["seconds_of_one"]) / math.log(last["at"] / first["at"])


def report(name: str, curve: dict[str, Any]) -> None:
    """One line a point."""
    first = curve["points"][0]["seconds_of_one"]
    for point in curve["points"]:
        one = point["seconds_of_one"]
        print(f"{name:<10} {point['at']:>9,}  {1e3 * one:>10.4f} ms of one, {one / first:>6.2f} times the first")
    if curve["exponent"] is not None:
        print(f"{name:<10} exponent {curve['exponent']:+.2f}")


if __name__ == "__main__":
    as_program(main)
