"""How fast hard negatives are mined: BM25 over package descriptions, and exact search against a plain matrix product.

    python -m benchmarks.data.mining_speed                       # rows: `debian`, descriptions of packages
    python -m benchmarks.data.mining_speed --rows rows.jsonl.gz  # other rows

BM25: 10 negatives for every row from all rows' positives, as `gemma4vec data mine` does it: reading apart, then
indexing and mining, once. Bound: 180 s in all.
Search: random unit vectors, blocks of 256 queries by 16,384 documents, ours and `queries @ documents.T` alone in turn;
the ratio of neighbours. Bound: 1.5 in the median. Ours also orders the best 100 of each query.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.data.loading.resolve_names import load_source, resolve_sources
from gemma4vec.data.mining.hard_negatives import Rules, build_corpus, mine
from gemma4vec.data.mining.searchers import Bm25Searcher
from gemma4vec.retrieval.exact import search

BM25_SECONDS, SEARCH_RATIO = 180.0, 1.5
QUERIES_AT_ONCE, DOCUMENTS_AT_ONCE = 256, 16_384


def main() -> int:
    arguments = parse_arguments()
    searched = measure_search(arguments)
    mined = measure_bm25(arguments)
    good = mined["seconds"]["all"] <= BM25_SECONDS and searched["ratio"]["median"] <= SEARCH_RATIO
    say("as promised" if good else "NOT as promised")
    bounds = {"bm25_seconds": BM25_SECONDS, "search_ratio": SEARCH_RATIO}
    write_result("mining_speed", {"bm25": mined, "search": searched, "bounds": bounds}, arguments.results)
    return 0 if good else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="debian", help="what gemma4vec data mine takes")
    parser.add_argument("--most", type=int, default=60_000, help="rows that are mined for")
    parser.add_argument("--documents", type=int, default=100_000, help="vectors that are searched")
    parser.add_argument("--queries", type=int, default=1_024)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def measure_bm25(arguments: argparse.Namespace) -> dict[str, Any]:
    """Mine once."""
    (source,) = resolve_sources([arguments.rows])
    rows = load_source(source)[0][: arguments.most]
    corpus = build_corpus(rows)
    started = time.perf_counter()
    searcher = Bm25Searcher(corpus.documents)
    indexed = time.perf_counter()
    negatives = sum(len(one.row.neg) for one in mine(rows, corpus, Rules(n=10), bm25=searcher))
    done = time.perf_counter()
    seconds = {"indexing": indexed - started, "mining": done - indexed, "all": done - started}
    size = f"{len(rows):,} rows of {len(corpus.documents):,} documents"
    say(f"BM25: {negatives:,} negatives for {size}: {done - started:.0f} s")
    return {"rows": len(rows), "documents": len(corpus.documents), "negatives": negatives, "seconds": seconds}


def measure_search(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ours and the product, in turn."""
    generator = np.random.default_rng(0)
    documents_MD = unit(generator, arguments.documents, arguments.dimension)
    queries_ND = unit(generator, arguments.queries, arguments.dimension)

    def product() -> None:
        for start in range(0, len(queries_ND), QUERIES_AT_ONCE):
            for block in range(0, len(documents_MD), DOCUMENTS_AT_ONCE):
                queries_ND[start : start + QUERIES_AT_ONCE] @ documents_MD[block : block + DOCUMENTS_AT_ONCE].T

    def ours() -> None:
        search(queries_ND, documents_MD, 100, block=DOCUMENTS_AT_ONCE)

    product()
    ours()
    pairs = [(timed(ours), timed(product)) for _ in range(arguments.repeats)]
    ratio = summary([mine / plain for mine, plain in pairs])
    say(f"search: {shown(ratio, 2)} times the product")
    return {
        "queries": arguments.queries,
        "documents": arguments.documents,
        "dimension": arguments.dimension,
        "ratio": ratio,
        "search_seconds": summary([mine for mine, _ in pairs]),
        "product_seconds": summary([plain for _, plain in pairs]),
    }


def unit(generator: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    """Random unit vectors."""
    vectors = generator.standard_normal((count, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(work: Callable[[], None]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    as_program(main)
