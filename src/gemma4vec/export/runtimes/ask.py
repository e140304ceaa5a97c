"""Ask a model that runs in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gemma4vec.errors import WorkError
from gemma4vec.export.runtimes.job import Answer, RoleText


def ask_process(
    kind: str,
    path: Path,
    texts: Sequence[RoleText],
    calls: Sequence[Sequence[int]],
    tokens_of: Sequence[int],
    *,
    max_tokens: int,
) -> Answer:
    """Run an export and return what it answers.

    Args:
        kind: "st", "onnx" or "gguf".
        path: what the runtime opens.
        texts: all texts.
        calls: indices of the texts of each call.
        tokens_of: indices of texts whose token ids are asked for.
        max_tokens: the model's limit.

    Raises:
        WorkError: the process ended early; the line has its last words.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = {
            "kind": kind,
            "path": str(path.resolve()),
            "max_tokens": max_tokens,
            "threads": threads,
            "texts": [[text.role, text.text] for text in texts],
            "calls": [list(call) for call in calls],
            "tokens_of": list(tokens_of),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "gemma4vec.export.runtimes.child", str(folder / "job.json"), str(folder)]
        package = str(Path(__file__).resolve().parents[3])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
        # The kernel closes our end of the pipe however we end, and the child waits for that.
        end, ours = os.pipe()
        try:
            done = subprocess.run(command, env=environment, stdin=end, capture_output=True)
        finally:
            os.close(end)
            os.close(ours)
        if done.returncode != 0:
            raise WorkError(f"{_PROGRAMS[kind]} cannot run {path.name}: {_last_words(done)}")
        about = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        return Answer(
            about["version"],
            np.load(folder / "vectors.npy", allow_pickle=False),
            {int(index): reason for index, reason in about["refused"].items()},
            about["tokens"],
        )


_PROGRAMS = {"st": "sentence-transformers", "onnx": "onnxruntime", "gguf": "llama.cpp"}


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why a process ended: its assertion, its last line, and the signal."""
    lines = [line.strip() for line in (done.stderr + done.stdout).decode("utf-8", "replace").splitlines()]
    telling = [line for line in lines if "ASSERT" in line or "error" in line.lower()]
    said = next(iter(telling[-1:] or [line for line in lines if line][-1:]), "it said nothing")[:300]
    if done.returncode < 0:
        return f"the process ended by {signal.Signals(-done.returncode).name} ({said})"
    return said
