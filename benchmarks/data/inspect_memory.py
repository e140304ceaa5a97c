"""How much memory does an inspection add, and does it grow with documents alone?

    python -m benchmarks.data.inspect_memory --documents 200000 --queries 50 [--dimension 64]
    python -m benchmarks.data.inspect_memory --documents 5000 --queries 500 --dimension 768 --usual --words 200

Random words and vectors; slices, kinds, geometry, topics, probes of texts, and with --map the map (t-SNE of 50,000
documents takes minutes). With --usual only what `gemma4vec inspect` does without further options: the seconds of the
processor, those of the made-up encoding aside, say what an inspection costs beyond encoding. The suite's own texts are
there before. Fails (exit code 1) where the added peak is above a gigabyte and 3 kB a document.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.exact_search import Peak
from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import NOTHING_MORE, Subject, Wanted
from gemma4vec.text.prompts import Document

FIXED, EACH = 1_000_000_000, 3_000  # bytes
VOCABULARY = 5_000
PROBES = ("position", "length", "literal", "negation", "limit")


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"GEMMA4VEC_HOME": f"{folder}/runs", "GEMMA4VEC_CACHE": f"{folder}/cache"}
        model = RandomModel(arguments.dimension)
        wanted = NOTHING_MORE if arguments.usual else Wanted(probes=PROBES, clusters=True, map=arguments.map)

        def run(suite: RetrievalSuite) -> None:
            inspect(
                Subject(model, "random"),
                suite,
                Path(folder) / "out",
                against=Subject(Bm25Model(), "bm25"),
                wanted=wanted,
            )

        few = min(500, arguments.queries)
        run(made(500, few, arguments.words))  # what is loaded at first use is not the inspection's
        suite = made(arguments.documents, arguments.queries, arguments.words)
        say(f"{suite.size()}: inspecting")
        with Peak() as peak:
            started, used = time.perf_counter(), time.process_time() - model.seconds
            run(suite)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - model.seconds - used
    bound = FIXED + EACH * arguments.documents
    measured: dict[str, Any] = {
        "documents": arguments.documents,
        "queries": arguments.queries,
        "dimension": arguments.dimension,
        "map": arguments.map,
        "usual": arguments.usual,
        "words": arguments.words,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "added_memory_mb": peak.added_own / 1e6,
        "bound_mb": bound / 1e6,
    }
    write_result("inspect-memory", measured, arguments.results)
    peak_words = f"{peak.added_own / 1e6:,.0f} MB added at the peak (bound {bound / 1e6:,.0f})"
    print(f"{seconds:.0f} s ({cpu_seconds:.1f} of the processor, without encoding), {peak_words}")
    return int(peak.added_own > bound)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--words", type=int, default=12, help="of a document, a multiple of three")
    parser.add_argument("--usual", action="store_true", help="without topics, probes and the map")
    parser.add_argument("--map", action="store_true", help="also the map")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def made(documents: int, queries: int, words: int = 12) -> RetrievalSuite:
    """Documents of three sentences of random words; a query has words of its document."""
    generator = np.random.default_rng(0)
    words_MW = generator.integers(0, VOCABULARY, (documents, words))
    third = words // 3
    thirds = (slice(0, third), slice(third, 2 * third), slice(2 * third, words))
    corpus = [Document(" ".join(f"{text(row[part])}." for part in thirds)) for row in words_MW]
    ids = [f"d{row}" for row in range(documents)]
    asked = generator.permutation(documents)[:queries].tolist()
    return RetrievalSuite(
        name="random",
        corpus_ids=ids,
        corpus=corpus,
        query_ids=[f"q{row}" for row in range(queries)],
        queries=[text(words_MW[row, 4:7]) for row in asked],
        qrels={f"q{place}": {ids[row]: 1} for place, row in enumerate(asked)},
    )


def text(words: np.ndarray) -> str:
    """Numbers as words."""
    return " ".join(f"w{word}" for word in words.tolist())


class RandomModel:
    """A text's vector is the sum of its words' random ones. `seconds`: of the processor, spent on that."""

    name = fingerprint = "random"
    folder = None

    def __init__(self, dimension: int) -> None:
        self.dimension, self.seconds = dimension, 0.0
        self.table = np.random.default_rng(1).standard_normal((VOCABULARY, dimension), dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        return {"dtype": "fp32", "max_tokens": 512}

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: Any = None) -> np.ndarray:
        return self.encode_query(texts)

    def encode_query(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        started = time.process_time()
        found = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, one in enumerate(texts):
            words = [int(word[1:]) for word in one.replace(".", "").split() if word[1:].isdigit()]
            found[row] = self.table[words].sum(axis=0) if words else self.table[0]
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        self.seconds += time.process_time() - started
        return found

    def encode_document(
        self, texts: Sequence[Document], *, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        return self.encode_query([one.text for one in texts])


if __name__ == "__main__":
    as_program(main)
