"""A model of bulk encodings without weights, which a worker process opens in no time.

Vectors come from hashes of a text and of its place in the shard, as bf16's last bits depend on the batch: a shard that
is cut otherwise has other bytes.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemma4vec.serving.encode.bulk_embedder import Encoded

LIMIT = 12  # characters, one a token


class StubEncoder:
    name, dimension, lengths = "stub", 8, (4, 8)

    def __init__(self, fingerprint, seconds, broken, dies, log):
        self.fingerprint, self.seconds, self.broken, self.dies, self.log = fingerprint, seconds, broken, dies, log

    def identity(self):
        return {"name": self.name, "fingerprint": self.fingerprint, "max_tokens": LIMIT}

    def prompt(self, queries):
        return "q: " if queries else "d: "

    def encode(self, documents, queries, *, characters, progress=None):
        if self.log:
            with Path(self.log).open("a") as stream:
                stream.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        if self.dies and any(self.dies in one.text for one in documents):
            os.kill(os.getpid(), 9)
        whole = [f"{one.title or ''} {one.text}".strip() for one in documents]
        rows = []
        for place, text in enumerate(whole):
            digest = hashlib.sha256(f"{self.prompt(queries)}{place} {text}".encode()).digest()
            rows.append(np.frombuffer(digest[:8], np.uint8).astype(np.float32) - 127.5)
        vectors_ND = np.stack(rows)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        for row, text in enumerate(whole):
            if self.broken and self.broken in text:
                vectors_ND[row] = np.nan
        if progress:
            progress(len(whole), len(whole))
        lengths_N = np.array([len(text) for text in whole], dtype=np.int32)
        return Encoded(vectors_ND, np.minimum(lengths_N, LIMIT), lengths_N > LIMIT)


@dataclass(frozen=True)
class StubOpener:
    """Opens the stub; `dies` is a text at which the process kills itself, `log` a file with a line for each shard."""

    fingerprint: str = "f" * 16
    seconds: float = 0.0
    broken: str = ""
    dies: str = ""
    log: str = ""

    def __call__(self, threads=None, worker=0):
        return StubEncoder(self.fingerprint, self.seconds, self.broken, self.dies, self.log)
