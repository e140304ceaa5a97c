"""A server under load: speed, latency, overload, and whether every reply is that of its own text.

    python -m benchmarks.serving.serve [RUN] [--quick] [--only saturation latency overload many]

- saturation: real tokens a second of `gemma4vec serve`, of `Embedder` in this process and of llama.cpp's server (GGUF
  f16, by xllamacpp), on the same texts, in turn. The clients run in this process: their work is charged to the servers.
- latency: one query of about 16 tokens, with Poisson arrivals at half of the rate that 16 clients reach.
- overload: requests at five times the rate of saturation. Goodput is the rate of those that were answered.
- many: 100,000 requests of short texts to a tiny model, each reply compared with the vector of its own text.

Without RUN, a causal model with the last token is saved from the bundled Gemma 3 270M. `--quick` takes a tiny random
model and few requests: it shows that the program works. Fails (exit code 1) where a target is missed; a quick run only
where a reply is wrong or lost.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serving.export_parity import save
from benchmarks.serving.serve_client import Reply, closed_loop, open_loop
from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.errors import WorkError

PARTS = ("saturation", "latency", "overload", "many")
LEAST_SHARE, SLOWEST_P99, LEAST_GOODPUT, SLOWEST_REFUSAL = 0.85, 0.250, 0.9, 0.050
START_SECONDS = 900  # loading and compiling, with nothing in the cache
CLIENTS = 5


class Sizes(NamedTuple):
    """How much is measured."""

    texts: int
    repeats: int
    queries: int
    overload_seconds: float
    many: int


FULL, QUICK = Sizes(384, 5, 600, 30.0, 100_000), Sizes(16, 1, 40, 2.0, 1_000)


def main() -> int:
    arguments = parse_arguments()
    if arguments.llama is not None:
        return run_llama(arguments.llama)
    sizes = QUICK if arguments.quick else FULL
    measured: dict[str, Any] = {"quick": arguments.quick, **sizes._asdict()}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as temporary:
        scratch = Path(temporary)
        if arguments.quick or "many" in arguments.only:
            tiny = save(scratch / "tiny", "causal-last", str(tiny_base(scratch / "base")))
        if set(arguments.only) - {"many"}:
            model = tiny if arguments.quick else Path(arguments.run or save(scratch, "causal-last", arguments.base))
            options = ["--no-compile"] if arguments.quick else []
            with Server(model, *options) as server:
                measured |= measure(server, model, sizes, arguments, scratch)
        if "many" in arguments.only:
            with Server(tiny, "--no-compile") as server:
                measured["many_requests"] = many(server, tiny, sizes.many)
    misses = missed(measured)
    parts = [part for part in PARTS if part in arguments.only]
    name = "serve" if len(parts) == len(PARTS) else "-".join(["serve", *parts])
    write_result(name, {**measured, "missed": misses}, arguments.results)
    for line in misses:
        print(f"MISSED  {line}")
    hard = [line for line in misses if "wrong" in line or "lost" in line or not arguments.quick]
    return 1 if hard else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="finished run or saved model (default: one of the bundled base)")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tiny model and few requests")
    parser.add_argument("--no-peer", action="store_true", help="leave llama.cpp out")
    parser.add_argument("--scratch", type=Path, help="folder for models, two gigabytes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--llama", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(
    server: "Server", model: Path, sizes: Sizes, arguments: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """The parts that need the real model."""
    from gemma4vec.model.inference.embedder import Embedder

    embedder = Embedder.load(model)
    assert isinstance(embedder, Embedder)
    if not arguments.quick:
        embedder.compiles_from = 0
    texts = source_texts(sizes.texts)
    tokens = lengths_of(embedder, texts)
    found: dict[str, Any] = {"tokens": sum(tokens)}
    if "saturation" in arguments.only or "overload" in arguments.only:
        file = None if arguments.no_peer else write_gguf(model, scratch / "model.gguf")
        found["saturation"] = saturation(server, embedder, texts, sum(tokens), sizes.repeats, file)
    if "latency" in arguments.only:
        found["latency"] = latency(server, embedder, sizes.queries)
    if "overload" in arguments.only:
        found["overload"] = overload(server, embedder, texts, tokens, found["saturation"], sizes.overload_seconds)
    return found


def lengths_of(embedder: Any, texts: list[str]) -> list[int]:
    """Tokens of each document with its prompt."""
    return [one.length for one in embedder.read(list(map(embedder.prompts.for_document, texts)), embedder.max_tokens)]


def saturation(
    server: "Server", embedder: Any, texts: list[str], tokens: int, repeats: int, gguf: Path | None
) -> dict[str, Any]:
    """Tokens a second of each side, in turn; the first round of each is not counted."""
    # Small enough that what the clients ask together may wait: the server takes ten seconds of work.
    bodies = [{"input": texts[i : i + 8], "input_type": "document"} for i in range(0, len(texts), 8)]
    whole = ["".join(embedder.prompts.for_document(text)) for text in texts]
    part = texts[: max(16, len(texts) // 8)]  # llama.cpp takes minutes for all
    peer_tokens = sum(lengths_of(embedder, part))
    peer_bodies = [{"input": whole[i : i + 8]} for i in range(0, len(part), 8)]
    rates: dict[str, list[float]] = {"embedder": [], "server": [], "llama_server": []}
    cosines: dict[str, float] = {}
    with Llama(gguf) as llama:
        for turn in range(repeats + 1):
            started = time.perf_counter()
            expected_ND = embedder.encode_document(texts)
            seconds = {"embedder": time.perf_counter() - started}
            for name, port, asked in (("server", server.port, bodies), ("llama_server", llama.port, peer_bodies)):
                if port is None:
                    continue
                started = time.perf_counter()
                replies = asyncio.run(closed_loop(port, asked, CLIENTS, retry=True))
                seconds[name] = time.perf_counter() - started
                found_ND = np.concatenate([vectors(reply) for reply in replies])
                similar_N = (found_ND * expected_ND[: len(found_ND)]).sum(1)
                cosines[name] = min(cosines.get(name, 1.0), float(similar_N.min()))
            if turn:
                for name, value in seconds.items():
                    rates[name].append((peer_tokens if name == "llama_server" else tokens) / value)
    ratios = [ours / alone for ours, alone in zip(rates["server"], rates["embedder"], strict=True)]
    found: dict[str, Any] = {
        "tokens_per_second": {name: summary(values) for name, values in rates.items() if values},
        "ratio_to_embedder": summary(ratios),
        "cosine_min": cosines,
    }
    if rates["llama_server"]:
        ratios = [ours / theirs for ours, theirs in zip(rates["server"], rates["llama_server"], strict=True)]
        found["ratio_to_llama_server"] = summary(ratios)
    for name, value in found["tokens_per_second"].items():
        say(f"{name}: {shown(value)} tokens/s")
    say(f"server / Embedder: {shown(found['ratio_to_embedder'], 2)}")
    return found


def latency(server: "Server", embedder: Any, count: int) -> dict[str, Any]:
    """Seconds of one query at half load, and of the same in this process."""
    generator = random.Random(1)
    words = [
        "read",
        "write",
        "a",
        "file",
        "of",
        "list",
        "the",
        "path",
        "to",
        "and",
        "return",
        "data",
        "open",
        "sort",
        "from",
        "in",
    ]
    queries = [" ".join(generator.choices(words, k=8)) for _ in range(count)]
    tokens = [one.length for one in embedder.read(list(map(embedder.prompts.for_query, queries)), embedder.max_tokens)]
    bodies = [{"input": query, "input_type": "query"} for query in queries]
    started = time.perf_counter()
    asyncio.run(closed_loop(server.port, bodies, 16))
    rate = count / (time.perf_counter() - started)
    replies = asyncio.run(open_loop(server.port, bodies, rate / 2, seed=2))
    alone = []
    for query in queries[: min(count, 100)]:
        started = time.perf_counter()
        embedder.encode_query([query])
        alone.append(time.perf_counter() - started)
    seconds = [reply.seconds for reply in replies]
    found = {
        "tokens_of_a_query": float(np.mean(tokens)),
        "queries_per_second_at_saturation": rate,
        "statuses": statuses(replies),
        "p50": float(np.quantile(seconds, 0.5)),
        "p99": float(np.quantile(seconds, 0.99)),
        "in_process_p50": float(np.quantile(alone, 0.5)),
    }
    say(f"one query at {rate / 2:.1f}/s: p50 {found['p50'] * 1000:.0f} ms, p99 {found['p99'] * 1000:.0f} ms")
    return found


def overload(
    server: "Server", embedder: Any, texts: list[str], tokens: list[int], base: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Requests of one and of eight texts at five times the rate of saturation."""
    capacity = base["tokens_per_second"]["server"]["median"]
    generator = random.Random(3)
    bodies: list[dict[str, Any]] = []
    sizes: list[int] = []
    while sum(sizes) < 5 * capacity * seconds:
        rows = [generator.randrange(len(texts)) for _ in range(generator.choice((1, 8)))]
        bodies.append({"input": [texts[row] for row in rows], "input_type": "document"})
        sizes.append(sum(tokens[row] for row in rows))
    started = time.perf_counter()
    replies = asyncio.run(open_loop(server.port, bodies, len(bodies) / seconds, seed=4))
    taken = time.perf_counter() - started
    good = [size for size, reply in zip(sizes, replies, strict=True) if reply.status == 200]
    refused = [reply.seconds for reply in replies if reply.status == 429]
    accepted = [reply.seconds for reply in replies if reply.status == 200]
    found = {
        "requests": len(replies),
        "statuses": statuses(replies),
        "goodput_share": sum(good) / taken / capacity,
        "refusal_seconds_max": max(refused, default=0.0),
        "refusal_seconds_p99": float(np.quantile(refused, 0.99)) if refused else 0.0,
        "accepted_seconds_max": max(accepted, default=0.0),
        "refusals_without_retry_after": sum(reply.status == 429 and not reply.retry_after for reply in replies),
    }
    say(f"overload: {found['statuses']}, goodput {found['goodput_share']:.2f} of saturation")
    return found


def many(server: "Server", model: Path, count: int) -> dict[str, Any]:
    """Every reply is compared with its own text's vector, which no other text has."""
    from gemma4vec.model.inference.embedder import Embedder

    embedder = Embedder.load(model)
    texts = [f"item {i}: {line[:60]}" for i, line in enumerate(source_texts(500))]
    expected_ND = embedder.encode_document(texts)
    nearest = float(np.sort(expected_ND @ expected_ND.T, axis=1)[:, -2].max())
    generator = random.Random(5)
    rows = [[generator.randrange(len(texts)) for _ in range(1 + (i % 7 == 0) * 5)] for i in range(count)]
    bodies = [{"input": [texts[row] for row in own], "input_type": "document"} for own in rows]
    started = time.perf_counter()
    replies = asyncio.run(closed_loop(server.port, bodies, 64, retry=True))
    seconds = time.perf_counter() - started
    wrong = lost = 0
    for own, reply in zip(rows, replies, strict=True):
        if reply.status != 200:
            lost += 1
            continue
        found_ND = vectors(reply)
        best = (found_ND @ expected_ND.T).argmax(1)
        close = (found_ND * expected_ND[own]).sum(1) > 0.999
        wrong += not (len(found_ND) == len(own) and (best == own).all() and close.all())
    say(f"{count:,} requests in {seconds:.0f} s: {lost} lost, {wrong} wrong")
    return {
        "requests": count,
        "seconds": seconds,
        "lost": lost,
        "wrong": wrong,
        "retried": sum(reply.tries - 1 for reply in replies),
        "largest_cosine_of_two_texts": nearest,
    }


def missed(measured: dict[str, Any]) -> list[str]:
    """The targets that were missed."""
    found = []
    if speed := measured.get("saturation"):
        if (ratio := speed["ratio_to_embedder"]["median"]) < LEAST_SHARE:
            found.append(f"{ratio:.2f} of Embedder; {LEAST_SHARE} is the target")
        if "ratio_to_llama_server" in speed and (ratio := speed["ratio_to_llama_server"]["median"]) < 1:
            found.append(f"{ratio:.2f} of llama-server")
        if speed["cosine_min"]["server"] < 0.999:
            found.append(f"wrong vectors: cosine {speed['cosine_min']['server']:.4f}")
    if (one := measured.get("latency")) and one["p99"] > SLOWEST_P99:
        found.append(f"p99 of a query {one['p99']:.3f} s; {SLOWEST_P99} is the target")
    if load := measured.get("overload"):
        if load["goodput_share"] < LEAST_GOODPUT:
            found.append(f"goodput {load['goodput_share']:.2f}; {LEAST_GOODPUT} is the target")
        if set(load["statuses"]) - {"200", "429"} or load["refusals_without_retry_after"]:
            found.append(f"lost under overload: {load['statuses']}")
        if load["refusal_seconds_max"] > SLOWEST_REFUSAL:
            found.append(f"a refusal took {load['refusal_seconds_max']:.3f} s; {SLOWEST_REFUSAL} is the target")
    if (all_of := measured.get("many_requests")) and (all_of["lost"] or all_of["wrong"]):
        found.append(f"{all_of['lost']} lost, {all_of['wrong']} wrong of {all_of['requests']:,}")
    return found


def vectors(reply: Reply) -> np.ndarray:
    """`[N, D]` vectors of a reply, as unit vectors."""
    if reply.status != 200:
        raise WorkError(f"the server answers {reply.status}: {reply.body[:200]!r}")
    rows = sorted(json.loads(reply.body)["data"], key=lambda row: row["index"])
    found_ND = np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])
    return found_ND / np.linalg.norm(found_ND, axis=1, keepdims=True)


def statuses(replies: Sequence[Reply]) -> dict[str, int]:
    """Number of replies by status; 0: none."""
    values = [str(reply.status) for reply in replies]
    return {value: values.count(value) for value in sorted(set(values))}


def source_texts(count: int) -> list[str]:
    """Pieces of Python's own library, of very different lengths, that differ from each other."""
    found: dict[str, None] = {}
    generator = random.Random(0)
    for file in sorted(Path(os.__file__).parent.glob("*.py")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        at = 0
        while at < len(lines) and len(found) < count:
            size = generator.choice((2, 4, 8, 16, 32))
            piece = "\n".join(lines[at : at + size]).strip()[:1200]
            at += size
            if piece:
                found[piece] = None
    return list(found)


def tiny_base(folder: Path) -> Path:
    """A random Gemma 3 of two layers with the bundled base's tokenizer."""
    import shutil

    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from gemma4vec.model.bases.resolve import resolve_base

    torch.manual_seed(0)
    real = Path(resolve_base("bundled:gemma-3-270m").path)
    vocabulary = json.loads((real / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    Gemma3ForCausalLM(config).save_pretrained(folder)
    for file in real.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def write_gguf(model: Path, file: Path) -> Path:
    """The model as GGUF f16."""
    from gemma4vec.export.formats.gguf_file import write_gguf as write
    from gemma4vec.export.source import open_source

    source = open_source(str(model))
    write(source, file, "f16", source.embedder.dimension)
    return file


class Server:
    """`gemma4vec serve` in a process of its own, ready when entered."""

    def __init__(self, model: Path, *options: str):
        words = ["serve", str(model), "--port", "0", "--too-long", "truncate", *options]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gemma4vec", *words], stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.port = 0

    def __enter__(self) -> "Server":
        assert self._process.stderr is not None
        for line in self._process.stderr:
            say(line.rstrip())
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
            if line.startswith("serving "):
                return self
        raise WorkError("the server has ended before it was ready")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        if code:
            raise WorkError(f"the server ended with {code} after SIGTERM")


class Llama:
    """llama.cpp's server in a process of its own; None: no file, no server."""

    def __init__(self, file: Path | None):
        self.file, self.port, self._process = file, None, None

    def __enter__(self) -> "Llama":
        if self.file is not None:
            command = [sys.executable, "-m", "benchmarks.serving.serve", "--llama", str(self.file)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for line in self._process.stdout:
                if match := re.search(r"LISTENING http://[^:]+:(\d+)", line):
                    self.port = int(match[1])
                    return self
            raise WorkError("llama.cpp's server has ended before it was ready")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)


def run_llama(file: Path) -> int:
    """llama.cpp's server with eight slots, until standard input closes."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.embedding = True
    settings.n_parallel = CLIENTS
    settings.n_ctx = CLIENTS * 1024
    settings.n_batch = settings.n_ubatch = 2048
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = os.cpu_count() or 1
    settings.n_gpu_layers = 0
    settings.ui = False
    settings.verbosity = 1
    server = xllamacpp.Server(settings)
    print(f"LISTENING {server.listening_address}", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    as_program(main)
