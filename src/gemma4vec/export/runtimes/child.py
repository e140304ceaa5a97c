"""A process of its own that runs an exported model: `python -m gemma4vec.export.runtimes.child JOB ANSWER`.

llama.cpp ends the whole process where a file violates an assertion, and onnxruntime must be seen to work without torch.
"""

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np

from gemma4vec.export.runtimes.job import RoleText, Runtime, answer


def open_runtime(kind: str, path: Path, max_tokens: int, threads: int) -> Runtime:
    """Open an export in the program that it is for."""
    if kind == "onnx":
        from gemma4vec.export.runtimes.run_onnx import OnnxRuntime

        return OnnxRuntime(path, threads)
    if kind == "gguf":
        from gemma4vec.export.runtimes.run_llama_cpp import LlamaCpp

        return LlamaCpp(path, max_tokens, threads)
    from gemma4vec.export.runtimes.run_sentence_transformers import SentenceTransformers

    return SentenceTransformers(path, threads)


def main(job_file: Path, answer_folder: Path) -> None:
    """Answer a job: read JSON, write `vectors.npy` and `answer.json`."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    texts = [RoleText(role, text) for role, text in job["texts"]]
    calls = [[texts[i] for i in call] for call in job["calls"]]
    runtime = open_runtime(job["kind"], Path(job["path"]), job["max_tokens"], job["threads"])
    found = answer(runtime, calls, [texts[i] for i in job["tokens_of"]])
    np.save(answer_folder / "vectors.npy", found.vectors_ND)
    about = {
        "version": found.version,
        "refused": {str(index): reason for index, reason in found.refused.items()},
        "tokens": found.tokens,
        "torch": "torch" in sys.modules,
    }
    (answer_folder / "answer.json").write_text(json.dumps(about), encoding="utf-8")


def end_with_parent(descriptor: int) -> None:
    """End this process when the other end of a pipe is closed: its parent has ended, perhaps by SIGKILL."""

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent(sys.stdin.fileno())
    main(Path(sys.argv[1]), Path(sys.argv[2]))
