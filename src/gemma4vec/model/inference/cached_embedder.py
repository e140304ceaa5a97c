"""An embedder with a vector cache on disk.

The key of a vector contains all that it depends on: the model (its fingerprint and `describe()`), the text with its
title and role, the versions of the libraries, and the source code of model/ and text/. Evaluating again, with other
metrics, computes no vector.

Do not wrap a model in training: its weights change under one fingerprint.
Shapes: N texts, D dimensions.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma4vec.files import optional_file, sha256_text
from gemma4vec.machine.versions import installed_version
from gemma4vec.model.inference.vector_store import KEY_BYTES, VectorStore, vectors_folder
from gemma4vec.text.prompts import Document, as_document
from gemma4vec.text.text_embedder import TextEmbedder

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]
COMPUTES = ("torch", "transformers", "sentence-transformers")
# An interrupted encoding loses one part at most. Several windows of an embedder, so that sorting by length pays.
_PART = 4096


class CachedEmbedder:
    """Wraps an embedder; vectors that any process has computed before come from disk.

    Attributes:
        found: number of texts whose vectors came from disk.
        computed: number of texts that the model encoded.
    """

    def __init__(self, model: TextEmbedder, folder: Path | None = None):
        self.model = model
        self.found = self.computed = 0
        described = model.describe()
        identity = sha256_text(
            model.fingerprint,
            json.dumps(described, sort_keys=True, default=str),
            *(f"{package} {installed_version(package)}" for package in COMPUTES),
            _code(),
        )
        about = {"model": model.name, "fingerprint": model.fingerprint, "dimension": model.dimension, **described}
        self._store = VectorStore(folder or vectors_folder(), identity[:24], model.dimension, about)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint."""
        return self.model.fingerprint

    @property
    def weights(self) -> str | None:
        """Hash of the model's weights, if known."""
        weights: str | None = getattr(self.model, "weights", None)
        return weights

    @property
    def folder(self) -> Path | None:
        """The folder that the model was opened from, if any."""
        return self.model.folder

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return self.model.dimension

    def describe(self) -> dict[str, Any]:
        """The wrapped model's settings; the cache adds none."""
        return self.model.describe()

    def encode_query(self, queries: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of queries, with the model's query prompt."""
        keys = [_key("query", query) for query in queries]
        return self._encode(keys, queries, self.model.encode_query, progress)

    def encode_document(self, documents: Sequence[str | Document], *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of documents, with the model's document prompt and their titles."""
        keys = [_key("document", text, title or "") for text, title in map(as_document, documents)]
        return self._encode(keys, documents, self.model.encode_document, progress)

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of texts with `prompt` put before each."""
        keys = [_key("text", text, prompt) for text in texts]

        def encode(left: list[Any], *, progress: Progress | None) -> Vectors:
            return self.model.encode(left, prompt, progress=progress)

        return self._encode(keys, texts, encode, progress)

    def _encode(
        self, keys: list[bytes], texts: Sequence[Any], encode: Callable[..., Vectors], progress: Progress | None
    ) -> Vectors:
        """Vectors from disk; the others are computed in parts of similar length, and each part is stored at once."""
        vectors_ND, missing = self._store.get(keys)
        self.found += len(keys) - len(missing)
        if len(missing) > _PART:
            missing.sort(key=lambda row: len(as_document(texts[row])[0]))
        for start in range(0, len(missing), _PART):
            rows = missing[start : start + _PART]
            new_ND = encode([texts[row] for row in rows], progress=_after(start, len(missing), progress))
            vectors_ND[rows] = new_ND
            self.computed += len(rows)
            if np.isfinite(new_ND).all():  # return broken vectors, but do not store them
                with optional_file(f"vectors of {self.name}"):
                    self._store.put([keys[row] for row in rows], new_ND)
        if not missing and progress:
            progress(len(keys), len(keys))
        return vectors_ND


def _after(start: int, total: int, progress: Progress | None) -> Progress | None:
    """Progress of a part that begins at text `start`, as progress of all texts."""
    if progress is None:
        return None
    return lambda done, _: progress(start + done, total)


def _key(*parts: str) -> bytes:
    """Hash of a text and its role; boundaries between the parts matter."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        encoded = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.digest()


@cache
def _code() -> str:
    """Hash of the source of model/ and text/: a changed readout changes vectors but no fingerprint."""
    package = Path(__file__).parents[2]
    files = sorted(path for room in ("model", "text") for path in (package / room).rglob("*.py"))
    return sha256_text(*(path.read_text(encoding="utf-8") for path in files))
