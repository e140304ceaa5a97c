"""An embedder of hashed words, and functions to index."""

import hashlib

import numpy as np

from gemma4vec.serving.search.documents import IndexedDocument


class FakeEmbedder:
    """Vectors from hashes; depends on the position in the batch, as bf16 does."""

    name = "fake"
    dimension = 8

    def __init__(self, fingerprint: str = "f" * 64, fail_after: int | None = None) -> None:
        self.fingerprint = fingerprint
        self.fail_after = fail_after
        self.encoded = 0

    def encode_document(self, texts):
        if self.fail_after is not None and self.encoded + len(texts) > self.fail_after:
            raise KeyboardInterrupt
        self.encoded += len(texts)
        return self._vectors([f"{place}{text.text}" for place, text in enumerate(texts)])

    def encode_query(self, texts):
        return self._vectors(texts)

    def _vectors(self, texts):
        rows = [np.frombuffer(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], np.uint8) for text in texts]
        vectors = np.stack(rows).astype(np.float32) - 127.5
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def functions(count: int) -> list[IndexedDocument]:
    return [
        IndexedDocument(f"p/m.py:f{i}", f"def f{i}():\n    return {i}", path="p/m.py", line=i + 1) for i in range(count)
    ]
