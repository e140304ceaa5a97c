"""Does exact search keep within its memory, and how long does it take?

    python -m benchmarks.data.exact_search --queries 10000 --documents 100000 [--dimension 768] [--k 100]

Random unit vectors; the documents lie in a file and are read by mapping it. Prints scores a second, the memory that
the search added at its peak, and what the whole of 100,000 x 1,000,000 would take at that rate. A sample of queries is
searched by one plain product as well; fails (exit code 1) where the two differ.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.retrieval.exact import search

WHOLE = 100_000 * 1_000_000
CHECKED = 32


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        documents_MD = written(Path(folder) / "documents.npy", arguments.documents, arguments.dimension)
        queries_ND = unit(np.random.default_rng(1), arguments.queries, arguments.dimension)
        rank_M = np.random.default_rng(2).permutation(arguments.documents)
        search(queries_ND[:8], documents_MD[:4096], arguments.k)  # what is loaded at first use is not the search's
        with Peak() as peak:
            started = time.perf_counter()
            found = search(queries_ND, documents_MD, arguments.k, descending_id_rank=rank_M, progress=spoken())
            seconds = time.perf_counter() - started
        differing = compared(queries_ND[:CHECKED], documents_MD, found.indices[:CHECKED], rank_M, arguments.k)
    scores = arguments.queries * arguments.documents
    measured: dict[str, Any] = {
        "queries": arguments.queries,
        "documents": arguments.documents,
        "dimension": arguments.dimension,
        "k": arguments.k,
        "seconds": seconds,
        "scores_per_second": scores / seconds,
        "added_memory_mb": peak.added / 1e6,
        "added_memory_without_mapped_file_mb": peak.added_own / 1e6,
        "hours_for_100000_x_1000000": WHOLE * seconds / scores / 3600,
        "checked_queries": CHECKED,
        "differing_queries": differing,
    }
    write_result("exact-search", measured, arguments.results)
    print(
        f"{seconds:.1f} s, {scores / seconds / 1e6:,.0f} million scores a second, {peak.added_own / 1e6:,.0f} MB; "
        f"100,000 x 1,000,000: {measured['hours_for_100000_x_1000000']:.2f} h; {differing} of {CHECKED} queries differ"
    )
    return 1 if differing else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def unit(generator: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    """`[count, dimension]` random unit vectors in fp32."""
    vectors = generator.standard_normal((count, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def written(file: Path, count: int, dimension: int) -> np.ndarray:
    """Documents in a file, mapped."""
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(count, dimension))
    generator = np.random.default_rng(0)
    for start in range(0, count, 65_536):
        mapped[start : start + 65_536] = unit(generator, min(65_536, count - start), dimension)
    mapped.flush()
    del mapped
    return np.load(file, mmap_mode="r")


def compared(queries_ND: np.ndarray, documents_MD: np.ndarray, found: np.ndarray, rank_M: np.ndarray, k: int) -> int:
    """Queries whose documents are not those of one product and a full sort; near-ties may change places."""
    scores = queries_ND @ np.asarray(documents_MD).T
    differing = 0
    for row, indices in zip(scores, found, strict=True):
        best = np.lexsort((rank_M, -row))[:k]
        differing += not np.allclose(row[best], row[indices], rtol=0, atol=1e-6)
    return differing


def spoken() -> Any:
    """A line every ten seconds."""
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"{done / total:.0%}")

    return line


class Peak:
    """The memory that is added while it is entered; a mapped file's pages, which the system may drop, apart."""

    def __enter__(self) -> "Peak":
        self._process, self._over = psutil.Process(), threading.Event()
        self._first = self._process.memory_info()
        self.added = self.added_own = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            now = self._process.memory_info()
            self.added = max(self.added, now.rss - self._first.rss)
            self.added_own = max(self.added_own, (now.rss - now.shared) - (self._first.rss - self._first.shared))


if __name__ == "__main__":
    as_program(main)
