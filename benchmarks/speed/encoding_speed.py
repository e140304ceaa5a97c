"""Encoded real tokens per second: gemma4vec's Embedder against SentenceTransformer.encode on the same merged folder.

    python -m benchmarks.speed.encoding_speed RUN --documents 500

One process, whole encodings of the same documents in turn: ours, theirs, ours, theirs; in one process, because the two
then meet the same neighbours and clock rates. Tokenising and pooling are included. The peer runs with its defaults
(sorted by length, batches of 32) and with the fastest of a few batch sizes, tried in turn several times; the headline
is the ratio to the fastest. Where both dtypes are measured, the peer in fp32, as it opens our folders unasked, also
meets us in bf16, which is how we do: `ratio_bf16_to_fp32`. The first encoding of each side (compilation, warm-up) is
reported apart. Our layers are compiled, as they are for a corpus of hundreds of thousands of characters and more;
`--small-job` leaves that to the sample's own size, with which fewer are not. Titles are left out: the peer's prompt has
none. The program fails where the two do not read the same number of tokens.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.files import home

if TYPE_CHECKING:
    from benchmarks.shared.plain_model import PlainModel, Vectors
    from gemma4vec.model.inference.embedder import Embedder

TRIAL_DOCUMENTS = 128  # on which batch sizes are tried
TRIAL_ROUNDS = 3
Seconds = dict[str, float]


def main() -> None:
    arguments = parse_arguments()
    texts = documents_of(arguments.suite, arguments.documents)
    from benchmarks.shared.plain_model import model_folder

    folder = model_folder(arguments.model)
    by_dtype = {}
    for dtype in sorted(arguments.dtype, reverse=True):  # fp32 first: its best batch size is asked for in bf16
        in_fp32 = by_dtype["fp32"]["fastest_batch_size"] if dtype == "bf16" and "fp32" in by_dtype else None
        by_dtype[dtype] = measure(folder, texts, dtype, arguments, in_fp32)
        report(dtype, by_dtype[dtype])
    measured = {
        "unit": "real tokens per second, tokenising and pooling included",
        "how": "encodings of the same documents in turn in one process: ours, theirs, ours, theirs",
        "documents": len(texts),
        "device": arguments.device or "default",
        "by_dtype": by_dtype,
    }
    write_result("encoding_speed", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run folder or merged model folder")
    parser.add_argument("--suite", type=Path, help="folder in BEIR layout (default: the test suite of pycode)")
    parser.add_argument("--documents", type=int, default=500, help="how many of its documents")
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 16, 64, 128], help="tried beside 32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small-job", action="store_true", help="compile ours only where the sample is worth it")
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if min(arguments.documents, arguments.repeats, *arguments.batch_sizes) < 1:
        parser.error("--documents, --repeats and --batch-sizes must be 1 or more")
    return arguments


def documents_of(suite: Path | None, count: int) -> list[str]:
    """A fixed sample of a suite's documents, without titles."""
    if suite is None:
        from gemma4vec.data.pycode.build import load_or_build_pycode

        suite = load_or_build_pycode(home() / "data").test
    sampled = sample_suite(load_suite(suite), 1, count)
    texts = [document.text for document in sampled.corpus if document.text.strip()]
    return texts[:count]


def measure(
    folder: Path, texts: list[str], dtype: str, arguments: argparse.Namespace, in_fp32: int | None = None
) -> dict[str, Any]:
    """Both sides in one dtype, and the peer in fp32 with batches of `in_fp32` too, where that is given."""
    from benchmarks.shared.plain_model import PlainModel, cosines
    from gemma4vec.model.inference.embedder import Embedder

    ours = Embedder.load(folder, device=arguments.device, dtype=dtype)
    if not isinstance(ours, Embedder):
        raise InputError(f"{folder} is not a model folder of gemma4vec; there is nothing to compare")
    if not arguments.small_job:
        ours.compiles_from = 0
    peer = PlainModel(folder, ours.prompts, dtype=dtype, device=arguments.device)
    tokens = count_tokens(ours, peer, texts)
    say(f"{dtype}: {len(texts)} documents, {tokens:,} real tokens")
    trials = try_batch_sizes(peer, texts, [32, *arguments.batch_sizes])
    best = min(trials, key=lambda size: statistics.median(trials[size]))

    def theirs(peer: PlainModel, batch_size: int) -> "Callable[[], Vectors]":
        def encode() -> "Vectors":
            peer.batch_size = batch_size
            return peer.encode_document(texts)

        return encode

    sides: dict[str, Callable[[], Vectors]] = {
        "ours": lambda: ours.encode_document(texts),
        "theirs": theirs(peer, best),
    }
    if best != 32:
        sides["theirs_default"] = theirs(peer, 32)
    if in_fp32 is not None:
        plain = PlainModel(folder, ours.prompts, dtype="fp32", device=arguments.device)
        sides["theirs_in_fp32"] = theirs(plain, in_fp32)
    first, vectors, seconds = time_in_turn(sides, arguments.repeats)
    speeds = {name: [tokens / taken for taken in seconds[name]] for name in sides}
    speeds.setdefault("theirs_default", speeds["theirs"])
    parity_N = cosines(vectors["ours"], vectors["theirs"])
    return {
        "tokens": tokens,
        "ratio": ratio(speeds, "theirs"),
        "ratio_to_default": ratio(speeds, "theirs_default"),
        **({"ratio_bf16_to_fp32": ratio(speeds, "theirs_in_fp32")} if in_fp32 is not None else {}),
        **{name: summary(values) for name, values in speeds.items()},
        "fastest_batch_size": best,
        "seconds_of_trial_by_batch_size": trials,
        "first_encoding_seconds": first,
        "compiled": ours.encoder.backbone.compiled,
        "cosine": {"minimum": float(parity_N.min()), "mean": float(parity_N.mean())},
    }


def ratio(speeds: dict[str, list[float]], side: str) -> dict[str, Any]:
    """Ours over that side, round by round."""
    return summary([a / b for a, b in zip(speeds["ours"], speeds[side], strict=True)])


def count_tokens(ours: "Embedder", peer: "PlainModel", texts: list[str]) -> int:
    """Real tokens of the texts, prompts and special tokens included.

    Raises:
        WorkError: the two sides count differently.
    """
    prompted = [ours.prompts.for_document(text) for text in texts]
    our_count = sum(tokens.length for tokens in ours.tokenizer.encode(prompted, ours.max_tokens))
    features = peer.model.preprocess(["".join(both) for both in prompted])
    their_count = int(features["attention_mask"].sum())
    if our_count != their_count:
        raise WorkError(f"the two read other tokens of the same documents: {our_count:,} and {their_count:,}")
    return our_count


def try_batch_sizes(peer: "PlainModel", texts: list[str], sizes: list[int]) -> dict[int, list[float]]:
    """Seconds of the peer on some documents by batch size: in rounds, so that what slows one down meets all."""
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(-1, TRIAL_ROUNDS):
        for size in seconds:
            peer.batch_size = size
            if number < 0:
                peer.encode_document(texts[:size])  # kernels for this shape are made once
                continue
            started = time.perf_counter()
            peer.encode_document(texts[:TRIAL_DOCUMENTS])
            seconds[size].append(time.perf_counter() - started)
    for size, taken in seconds.items():
        say(f"theirs with batches of {size}: {statistics.median(taken):.2f} s (median of {len(taken)})")
    return seconds


def time_in_turn(
    sides: "dict[str, Callable[[], Vectors]]",
    repeats: int,
    round_done: "Callable[[Seconds, dict[str, Vectors], dict[str, list[float]]], None]" = lambda *_: None,
) -> "tuple[Seconds, dict[str, Vectors], dict[str, list[float]]]":
    """Seconds of each side's first encoding, its vectors, and seconds of each repeat. Encoding ends on the CPU.

    `round_done` is given the same after each round.
    """
    first: Seconds = {}
    vectors: dict[str, Vectors] = {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(-1, repeats):
        for name, encode in sides.items():
            started = time.perf_counter()
            vectors[name] = encode()
            taken = time.perf_counter() - started
            if repeat < 0:
                first[name] = taken
            else:
                seconds[name].append(taken)
            say(f"{'first' if repeat < 0 else f'repeat {repeat + 1}'}: {name} {taken:.2f} s")
        round_done(first, vectors, seconds)
    if not all(np.isfinite(found).all() for found in vectors.values()):
        raise WorkError("vectors that are not finite; the model is broken in this dtype")
    return first, vectors, seconds


def report(dtype: str, found: dict[str, Any]) -> None:
    """The outcome on stdout."""
    print(f"{dtype}  ours    {shown(found['ours'])} real tokens/s, compiled: {found['compiled']}")
    print(f"{dtype}  theirs  {shown(found['theirs'])} real tokens/s with batches of {found['fastest_batch_size']}")
    print(f"{dtype}  ratio   {shown(found['ratio'], 2)}; to its default batches of 32 "
          f"{shown(found['ratio_to_default'], 2)}")  # fmt: skip
    if "ratio_bf16_to_fp32" in found:
        print(f"bf16 over theirs in fp32: {shown(found['ratio_bf16_to_fp32'], 2)}")
    print(f"{dtype}  cosine of the two: minimum {found['cosine']['minimum']:.6f}, mean {found['cosine']['mean']:.6f}")


if __name__ == "__main__":
    as_program(main)
