"""Is a quantized model on a CPU faster than ours in its usual number type, and is it still the model?

Part `quantized` of encode.py. Each path is written from the same saved model, judged by the gate of `gemma4vec export`
(token ids, cosines, batches, limits, nDCG@10 on a dev suite), and timed on the same documents, all paths in turn:

- ours: `Embedder` in the machine's number type (bf16 where the processor multiplies it), compiled
- llama.cpp: GGUF f16, q8_0 and q4_0 in its own server, in calls of several sizes
- ONNX: fp32, and weights of 8 bits in blocks of 32 (MatMulNBits, int8 arithmetic), in batches of several sizes

What cannot be made is written down with the reason.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.record import say, shown, summary
from benchmarks.speed.encoding_speed import documents_of
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.export.parity.gate import compare_export
from gemma4vec.export.runtimes.ask import ask_process
from gemma4vec.export.runtimes.job import RoleText
from gemma4vec.export.source import Source
from gemma4vec.machine.describe import usable_cores

ENOUGH = 1.5  # times our speed from which a path is worth having
GGUF = ("f16", "q8_0", "q4_0")
GGUF_QUICK = ("q8_0",)
Encode = Callable[[], Any]


def measure_quantized(folder: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Gate and speed of every path, and the answer."""
    from gemma4vec.export.parity.ranking import open_dev_suite
    from gemma4vec.export.source import open_source
    from gemma4vec.model.inference.embedder import Embedder

    if arguments.quick:  # one thread: those of llama.cpp wait for each other in loops, for ever on a busy machine
        os.environ["OMP_NUM_THREADS"] = "1"
    source = open_source(str(folder))
    queries, documents = (10, 20) if arguments.quick else (200, 600)
    suite = open_dev_suite(source, arguments.suite, queries, documents)
    texts = documents_of(arguments.corpus, arguments.documents)
    prompted = [source.embedder.prompts.for_document(text) for text in texts]
    tokens = sum(one.length for one in source.embedder.read(prompted, source.embedder.max_tokens))
    ours = Embedder.load(folder)
    assert isinstance(ours, Embedder)
    ours.compiles_from = 2**62 if arguments.quick else 0
    paths: dict[str, dict[str, Any]] = {"ours": {"dtype": ours.describe()["dtype"], "gate": "it is the reference"}}
    sides: dict[str, Encode] = {"ours": lambda: ours.encode_document(texts)}
    for name, write in writers(source, scratch, GGUF_QUICK if arguments.quick else GGUF).items():
        try:
            runtime, path, limits = write()
            paths[name] = judge(source, suite, runtime, path, limits)
            sides[name], paths[name]["batch"] = fastest(runtime, path, source, texts, arguments)
        except (InputError, WorkError) as error:
            paths[name] = {"gate": "not made", "reason": str(error)}
        except Exception as error:  # a quantizer of another library
            paths[name] = {"gate": "not made", "reason": f"{type(error).__name__}: {error}"[:300]}
        say(f"{name}: {paths[name]['gate']} {paths[name].get('reason', '')}")
    seconds = in_turn(sides, arguments.repeats)
    speeds = {name: [tokens / taken for taken in seconds[name]] for name in sides}
    for name, found in paths.items():
        if name in speeds:
            ratio = [a / b for a, b in zip(speeds[name], speeds["ours"], strict=True)]
            found |= {"tokens_per_second": summary(speeds[name]), "ratio_to_ours": summary(ratio)}
            print(f"quantized  {name:<14} {shown(found['ratio_to_ours'], 2)} times ours; gate: {found['gate']}")
    good = [
        name
        for name, found in paths.items()
        if found["gate"] == "passed" and found.get("ratio_to_ours", {}).get("median", 0.0) >= ENOUGH
    ]
    answer = f"{', '.join(good)}" if good else f"no path is {ENOUGH} times ours and passes the gate"
    print(f"quantized  {answer}")
    return {"documents": len(texts), "tokens": tokens, "paths": paths, "answer": answer}


Written = tuple[str, Path, str]  # runtime, what it opens, number type whose limits the gate has


def writers(source: Source, scratch: Path, gguf: Sequence[str]) -> dict[str, Callable[[], Written]]:
    """How each path is written."""
    made: dict[str, Callable[[], Written]] = {
        f"llama.cpp {dtype}": partial(write, source, scratch / dtype, "gguf", dtype) for dtype in gguf
    }
    made["onnx f32"] = partial(write, source, scratch / "onnx", "onnx", "f32")
    made["onnx 8 bits"] = partial(write_blocks, scratch / "onnx", scratch / "onnx-8-bits")
    return made


def write(source: Source, folder: Path, to: str, dtype: str) -> Written:
    """One of the package's formats."""
    from gemma4vec.export.formats.write_folder import check_format_holds, write_format

    check_format_holds(source, to, source.embedder.dimension)
    folder.mkdir(parents=True)
    return to, write_format(source, folder, to, dtype, source.embedder.dimension), dtype


def write_blocks(onnx: Path, folder: Path) -> Written:
    """The ONNX model with weights of 8 bits in blocks of 32, and everything else as it is."""
    import shutil

    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    from gemma4vec.export.formats.onnx_embedder import MODEL_FILE

    if not (onnx / MODEL_FILE).is_file():
        raise InputError("there is no ONNX model to quantize")
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(str(onnx / MODEL_FILE), algo_config=config)
    quantizer.process()
    shutil.copytree(onnx, folder, ignore=shutil.ignore_patterns("*.onnx", "*.onnx.data", "parity.json"))
    quantizer.model.save_model_to_file(str(folder / MODEL_FILE), True)
    return "onnx", folder, "q8_0"


def judge(source: Source, suite: RetrievalSuite, runtime: str, path: Path, limits: str) -> dict[str, Any]:
    """What the gate says."""
    from gemma4vec.files import folder_bytes

    ask = partial(ask_process, runtime, path, max_tokens=source.model.max_tokens)
    report = compare_export(source, suite, ask, dtype=limits, dimension=source.embedder.dimension)
    found: dict[str, Any] = {"gate": "passed" if report.passed else "refused", "report": report.as_json()}
    if not report.passed:
        found["reason"] = report.line()
    return found | {"bytes": folder_bytes(path) if path.is_dir() else path.stat().st_size}


def fastest(
    runtime: str, path: Path, source: Source, texts: Sequence[str], arguments: argparse.Namespace
) -> tuple[Encode, int]:
    """The path's encoding of all texts with the fastest of these batch or call sizes."""
    make = llama_cpp if runtime == "gguf" else onnx
    encode = make(path, source)
    trial = texts[: arguments.trial]
    seconds = {}
    for size in arguments.batch_sizes:
        encode(trial[:4], size)
        started = time.perf_counter()
        encode(trial, size)
        seconds[size] = time.perf_counter() - started
    best = min(seconds, key=lambda size: seconds[size])
    return lambda: encode(texts, best), best


def onnx(path: Path, source: Source) -> Callable[[Sequence[str], int], Any]:
    """Encoding by our embedder without torch."""
    from gemma4vec.export.formats.onnx_embedder import OnnxEmbedder

    opened: dict[int, OnnxEmbedder] = {}

    def encode(texts: Sequence[str], size: int) -> Any:
        if size not in opened:
            opened.clear()  # one model in memory
            opened[size] = OnnxEmbedder(path, threads=threads(), batch=size)
        return opened[size].encode_document(texts)

    return encode


def llama_cpp(path: Path, source: Source) -> Callable[[Sequence[str], int], Any]:
    """Encoding by llama.cpp's server in this process; longest texts first, so that its slots have work of one size."""
    from gemma4vec.export.runtimes.run_llama_cpp import LlamaCpp

    server = LlamaCpp(path, source.model.max_tokens, threads())
    limit = source.embedder.max_tokens

    def encode(texts: Sequence[str], size: int) -> Any:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found = np.zeros((len(texts), source.embedder.dimension), dtype=np.float32)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            found[part] = server.encode([RoleText("document", _cut(source, texts[i], limit)) for i in part])
        return found

    return encode


def _cut(source: Source, text: str, limit: int) -> str:
    """A text that llama.cpp reads whole, since it refuses longer ones. A token has a character or more."""
    if len(text) <= limit // 2:
        return text
    tokenizer = source.embedder.tokenizer.hf_tokenizer
    spare = source.embedder.tokenizer.prompt_tokens("".join(source.embedder.prompts.for_document(""))) + 8
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) + spare <= limit else str(tokenizer.decode(ids[: limit - spare]))


def threads() -> int:
    """Threads of a path: all cores, or fewer if the environment says so."""
    return int(os.environ.get("OMP_NUM_THREADS") or usable_cores())


def in_turn(sides: dict[str, Encode], repeats: int) -> dict[str, list[float]]:
    """Seconds of each path's repeats; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(-1, repeats):
        for name, encode in sides.items():
            started = time.perf_counter()
            encode()
            taken = time.perf_counter() - started
            if repeat >= 0:
                seconds[name].append(taken)
            say(f"{'first' if repeat < 0 else f'repeat {repeat + 1}'}: {name} {taken:.2f} s")
    return seconds
