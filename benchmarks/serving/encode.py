"""Bulk encoding: `gemma4vec encode` against `Embedder` and sentence-transformers' pool; memory; quantized paths.

    python -m benchmarks.serving.encode [RUN] [--parts speed memory quantized] [--quick]

Without a run, a model of the bundled Gemma 3 270M is saved first (untrained weights take the same time).

speed: real tokens a second of the same documents, in turn: `Embedder.encode_document`; `encode` into Parquet, from the
file to the last shard, without opening the model; the process pool of sentence-transformers, started before the clock,
with the fastest of its tried number types, numbers of processes and batch sizes. First rounds are apart.
memory: peak resident memory of an encoding of many short rows and of ten times as many by a tiny model, each in a
process of its own.
quantized: see encode_quantized.py.

Fails where `encode` is below 0.95 times `Embedder` or 2 times the pool, or memory grows by over 5%. With `--quick`,
sizes are small, speeds mean nothing, and nothing fails.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from benchmarks.speed.encoding_speed import count_tokens, documents_of, time_in_turn
from gemma4vec.machine.describe import usable_cores
from gemma4vec.serving.encode.bulk_embedder import CountingEmbedder
from gemma4vec.serving.encode.encode_file import EncodeSettings, encode_file

if TYPE_CHECKING:
    from benchmarks.shared.plain_model import PlainModel, Vectors
    from gemma4vec.model.inference.embedder import Embedder

PARTS = ("speed", "memory", "quantized")
LEAST_OF_EMBEDDER, LEAST_OF_POOL, MOST_MEMORY = 0.95, 2.0, 1.05


def main() -> int:
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(encode_in_this_process(*arguments.child)))
        return 0
    if not arguments.quick:
        os.environ["OMP_NUM_THREADS"] = str(usable_cores())  # before torch is imported; all sides have all cores
    measured: dict[str, Any] = {"quick": arguments.quick}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as temporary:
        scratch = Path(temporary)
        folder = arguments.run or saved_model(scratch / "saved", arguments.base)
        measured["model"] = folder.name if arguments.run else arguments.base
        if "speed" in arguments.parts:
            measured["speed"] = measure_speed(folder, scratch, arguments)
        if "memory" in arguments.parts:
            measured["memory"] = measure_memory(scratch, arguments)
        if "quantized" in arguments.parts:
            from benchmarks.serving.encode_quantized import measure_quantized

            if arguments.quick:  # exports and gates of a model of three small layers take a minute
                folder = saved_model(scratch / "small", str(small_base(scratch, arguments.base)))
            measured["quantized"] = measure_quantized(folder, scratch, arguments)
    failures = [] if arguments.quick else list(missed(measured))
    write_result("encode", measured | {"failures": failures}, arguments.results)
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="finished run or saved model (default: made of --base)")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes, to see whether everything runs")
    parser.add_argument("--corpus", type=Path, help="BEIR folder of documents (default: the test suite of pycode)")
    parser.add_argument("--documents", type=int, help="documents of speed and quantized (default 1,500; quick 24)")
    parser.add_argument("--repeats", type=int, help="rounds (default 5; quick 1)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="of the peers (default 4 8 16 32 64; quick 8)")
    parser.add_argument(
        "--pool-dtypes", nargs="+", choices=["bf16", "fp32"], help="tried by the pool (default: ours, fp32)"
    )
    parser.add_argument("--rows", type=int, help="rows of the smaller job of memory (default 10,000; quick 1,000)")
    parser.add_argument("--suite", default="pycode-dev", help="dev suite of the gate of quantized models")
    parser.add_argument("--scratch", type=Path, help="folder for models and outputs, some gigabytes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.trial = 8 if arguments.quick else 128
    small: dict[str, Any] = {"documents": 24, "repeats": 1, "batch_sizes": [8], "rows": 1_000}
    large: dict[str, Any] = {"documents": 1_500, "repeats": 5, "batch_sizes": [4, 8, 16, 32, 64], "rows": 10_000}
    for name, value in (small if arguments.quick else large).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def saved_model(folder: Path, base: str) -> Path:
    """A causal last-token model of a base, as training saves it."""
    from benchmarks.serving.export_parity import save

    say(f"saving a model of {base}")
    return save(folder, "causal-last", base)


def small_base(scratch: Path, base: str) -> Path:
    """A base of the same kind with three small layers and random weights."""
    from benchmarks.gpu.models import tiny_base
    from gemma4vec.model.bases.resolve import resolve_base

    return tiny_base(Path(resolve_base(base).path), scratch / "tiny")


@dataclass(frozen=True)
class Opened:
    """Hands out a model that is open already, so that the clock has the encoding alone."""

    embedder: "Embedder"

    def __call__(self, threads: int | None = None, worker: int = 0) -> CountingEmbedder:
        return CountingEmbedder(self.embedder, ())


def measure_speed(folder: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """`Embedder`, `encode` and the pool in turn."""
    from benchmarks.shared.plain_model import PlainModel, cosines
    from gemma4vec.model.inference.embedder import Embedder

    texts = documents_of(arguments.corpus, arguments.documents)
    source = write_texts(scratch / "documents.jsonl", texts)
    embedder = Embedder.load(folder)
    assert isinstance(embedder, Embedder)
    # As for a job of any size that is worth a bulk encoding.
    embedder.compiles_from = 2**62 if arguments.quick else 0
    own = {"float32": "fp32", "bfloat16": "bf16"}[embedder.describe()["dtype"]]
    tokens = count_tokens(embedder, PlainModel(folder, embedder.prompts, dtype=own, device="cpu"), texts)
    say(f"{len(texts)} documents, {tokens:,} real tokens, ours in {own}")
    dtypes = arguments.pool_dtypes or ([own] if arguments.quick else sorted({own, "fp32"}))
    pool, trials = best_pool(folder, embedder, texts, dtypes, arguments)
    settings = EncodeSettings(shard_rows=max(1, len(texts) // 2))

    def bulk() -> "Vectors":
        out = scratch / "vectors"
        shutil.rmtree(out, ignore_errors=True)
        encode_file(Opened(embedder), source, out, settings)
        return read_vectors(out)

    sides: dict[str, Callable[[], Vectors]] = {
        "embedder": lambda: embedder.encode_document(texts),
        "encode": bulk,
        "pool": lambda: pool.encode(texts),
    }
    try:
        first, vectors, seconds = time_in_turn(sides, arguments.repeats)
    finally:
        pool.stop()
    speeds = {name: [tokens / taken for taken in seconds[name]] for name in sides}
    ratios = {
        f"encode_to_{other}": summary([a / b for a, b in zip(speeds["encode"], speeds[other], strict=True)])
        for other in ("embedder", "pool")
    }
    for name in sides:
        print(f"speed  {name:<9} {shown(summary(speeds[name]))} real tokens/s")
    for name, ratio in ratios.items():
        print(f"speed  {name} {shown(ratio, 2)}")
    return {
        "documents": len(texts),
        "tokens": tokens,
        "dtype": own,
        "compiled": embedder.encoder.backbone.compiled,
        "shard_rows": settings.shard_rows,
        **{name: summary(values) for name, values in speeds.items()},
        **ratios,
        "first_round_seconds": first,
        "pool_setting": pool.setting,
        "pool_trials_seconds": trials,
        "cosine_minimum": {
            name: float(cosines(vectors["embedder"], vectors[name]).min()) for name in ("encode", "pool")
        },
    }


def write_texts(path: Path, texts: Sequence[str]) -> Path:
    """Texts as rows with ids."""
    path.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def read_vectors(out: Path) -> "Vectors":
    """The vectors of an output folder."""
    import pyarrow.parquet

    column = pyarrow.parquet.read_table(out / "vectors")["vector"].combine_chunks()
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)


class Pool:
    """The process pool of sentence-transformers; its processes share the cores."""

    def __init__(self, peer: "PlainModel", dtype: str, processes: int):
        self.peer, self.dtype, self.processes, self.batch_size = peer, dtype, processes, 32
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // processes))
        try:
            self._pool = peer.model.start_multi_process_pool(["cpu"] * processes)
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            if before is not None:
                os.environ["OMP_NUM_THREADS"] = before

    @property
    def setting(self) -> dict[str, Any]:
        """How it runs."""
        return {"dtype": self.dtype, "processes": self.processes, "batch_size": self.batch_size}

    def encode(self, texts: Sequence[str]) -> "Vectors":
        """Vectors of documents."""
        prompted = ["".join(self.peer.prompts.for_document(text)) for text in texts]
        # Longest texts first within a chunk is the library's own order; chunks of equal size keep all processes busy.
        chunk = -(-len(prompted) // (4 * self.processes))
        found = self.peer.model.encode(
            prompted, pool=self._pool, batch_size=self.batch_size, chunk_size=chunk, show_progress_bar=False
        )
        return np.asarray(found, dtype=np.float32)

    def stop(self) -> None:
        """End the processes."""
        self.peer.model.stop_multi_process_pool(self._pool)


def best_pool(
    folder: Path, embedder: "Embedder", texts: Sequence[str], dtypes: Sequence[str], arguments: argparse.Namespace
) -> tuple[Pool, dict[str, float]]:
    """The fastest pool of those tried, started, and the seconds of all on some documents."""
    from benchmarks.shared.plain_model import PlainModel

    trial = texts[: arguments.trial]
    counts = {usable_cores()} if arguments.quick else {1, usable_cores()}
    seconds: dict[str, float] = {}
    best: tuple[float, str, int, int] | None = None
    for dtype in dtypes:
        for processes in sorted(counts):
            pool = Pool(PlainModel(folder, embedder.prompts, dtype=dtype, device="cpu"), dtype, processes)
            try:
                pool.encode(trial[: 2 * processes])  # the processes have the model from here on
                for size in arguments.batch_sizes:
                    pool.batch_size = size
                    started = time.perf_counter()
                    pool.encode(trial)
                    taken = time.perf_counter() - started
                    seconds[f"{dtype}, {processes} processes, batches of {size}"] = taken
                    say(f"pool in {dtype} of {processes} processes, batches of {size}: {taken:.2f} s")
                    if best is None or taken < best[0]:
                        best = taken, dtype, processes, size
            finally:
                pool.stop()
    assert best is not None
    _, dtype, processes, size = best
    pool = Pool(PlainModel(folder, embedder.prompts, dtype=dtype, device="cpu"), dtype, processes)
    pool.batch_size = size
    return pool, seconds


def measure_memory(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory at R and 10 R rows."""
    tiny = small_base(scratch, arguments.base)
    found = {}
    for rows in (arguments.rows, 10 * arguments.rows):
        texts = (f"row {i} of a file that is long, about the number {i * i}" for i in range(rows))
        source = write_texts(scratch / f"{rows}.jsonl", list(texts))
        command = [
            sys.executable,
            "-m",
            "benchmarks.serving.encode",
            "--child",
            str(tiny),
            str(source),
            str(scratch / f"{rows}-out"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the encoding of {rows} rows failed: {done.stderr[-500:]}")
        found[str(rows)] = json.loads(done.stdout.splitlines()[-1])
        say(f"{rows:,} rows: peak {found[str(rows)]['peak_bytes'] / 1e6:,.0f} MB")
    small, large = (one["peak_bytes"] for one in found.values())
    print(f"memory  {large / small:.3f} times as much for 10 times the rows")
    return {"by_rows": found, "ratio": large / small}


def encode_in_this_process(model: str, source: str, out: str) -> dict[str, Any]:
    """One encoding, and the most memory that the process had. Layers are not compiled, whatever the job's size."""
    from gemma4vec.model.inference.embedder import Embedder

    embedder = Embedder.load(model)
    assert isinstance(embedder, Embedder)
    embedder.compiles_from = 2**62
    made = encode_file(Opened(embedder), Path(source), Path(out), EncodeSettings(shard_rows=500))
    return {"peak_bytes": peak_memory(), "rows": made.plan.rows, "seconds": made.seconds}


def peak_memory() -> int:
    """The most resident bytes of this process. (getrusage's also counts what its parent had when it was forked.)"""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def missed(measured: dict[str, Any]) -> Sequence[str]:
    """What was not reached."""
    found = []
    speed = measured.get("speed")
    for name, least in (("encode_to_embedder", LEAST_OF_EMBEDDER), ("encode_to_pool", LEAST_OF_POOL)):
        if speed and speed[name]["median"] < least:
            found.append(f"{name} is {speed[name]['median']:.2f}, not {least}")
    memory = measured.get("memory")
    if memory and memory["ratio"] > MOST_MEMORY:
        found.append(f"peak memory grew {memory['ratio']:.3f} times, not {MOST_MEMORY}")
    return found


if __name__ == "__main__":
    as_program(main)
