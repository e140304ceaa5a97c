"""Compare a running server, or a file that somebody exported, with the model that it should be."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.export.limits import LIMITS
from gemma4vec.export.parity.gate import compare_export
from gemma4vec.export.parity.ranking import DOCUMENTS, QUERIES, open_dev_suite, record_ranking
from gemma4vec.export.parity.report import ParityReport
from gemma4vec.export.runtimes.ask import ask_process
from gemma4vec.export.runtimes.job import Answer, RoleText, answer
from gemma4vec.export.runtimes.openai_client import OpenAiClient
from gemma4vec.export.source import open_source

# llama.cpp's numbers of file types
_FILE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 7: "q8_0", 32: "bf16"}


def check_parity(
    target: str | Path,
    run: str | Path,
    *,
    dtype: str | None = None,
    dimension: int | None = None,
    model: str | None = None,
    token: str | None = None,
    suite: str | None = None,
    queries: int = QUERIES,
    documents: int = DOCUMENTS,
) -> ParityReport:
    """Compare `target` with a run.

    Args:
        target: URL of an OpenAI-compatible server, a GGUF file, an ONNX folder or a sentence-transformers folder.
        run: run folder, run id, `latest`, or a folder that gemma4vec saved.
        dtype: number type, which sets the limits; None: a file's own, else f32.
        dimension: dimensions that carry values; None: all.
        model: the model's name on the server; None: the first one that it lists.
        token: bearer token of the server.
        suite: dev suite on which rankings are compared; None: the run's own.
        queries, documents: largest part of the suite.

    Raises:
        InputError: no such model, file or server; a run that is not finished; no dev suite.
        WorkError: the server or the program fails.
    """
    if dtype is not None and dtype not in LIMITS:
        raise InputError(f"--dtype {dtype}: use {', '.join(LIMITS)}")
    target = str(target)
    is_url = target.startswith(("http://", "https://"))
    kind, path = ("", Path()) if is_url else _kind(Path(target))
    source = open_source(str(run))
    ranked = open_dev_suite(source, suite, queries, documents)
    if is_url:
        client = OpenAiClient(target, source.embedder.prompts, model=model, token=token)
        ask = partial(_ask_server, client)
    else:
        ask = partial(ask_process, kind, path, max_tokens=source.model.max_tokens)
    chosen = dtype or (_file_dtype(path) if kind == "gguf" else "f32")
    length = source.check_dimension(dimension)
    report = compare_export(source, ranked, ask, dtype=chosen, dimension=length)
    if report.ranking is not None:
        record_ranking("parity", source, ranked, dtype=chosen, dimension=length)
    return report


def _kind(path: Path) -> tuple[str, Path]:
    """The kind of a file or folder, and what its program opens."""
    if path.is_file() and path.suffix == ".gguf":
        return "gguf", path
    if path.is_file() and path.suffix == ".onnx":
        return "onnx", path.parent
    if (path / "model.onnx").is_file():
        return "onnx", path
    if (path / "modules.json").is_file():
        return "st", path
    found = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(found) == 1:
        return "gguf", found[0]
    raise InputError(
        f"{path} is neither a URL, a GGUF file, an ONNX folder nor a sentence-transformers folder; give one of these"
    )


def _file_dtype(path: Path) -> str:
    from gemma4vec.model.bases.gguf_file import GgufFile

    number = GgufFile(path).metadata.get("general.file_type")
    if number not in _FILE_TYPES:
        raise InputError(f"{path}: its number type {number} has no limits here; name one with --dtype")
    return _FILE_TYPES[number]


def _ask_server(
    client: OpenAiClient, texts: Sequence[RoleText], calls: Sequence[Sequence[int]], tokens_of: Sequence[int]
) -> Answer:
    return answer(client, [[texts[i] for i in call] for call in calls], [texts[i] for i in tokens_of])
