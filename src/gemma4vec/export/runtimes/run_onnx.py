"""An ONNX folder in onnxruntime, through our own `OnnxEmbedder`; no torch is imported."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from gemma4vec.export.formats.onnx_embedder import OnnxEmbedder
from gemma4vec.export.runtimes.job import RoleText, Vectors
from gemma4vec.text.prompts import Prompted


class OnnxRuntime:
    """Runs an ONNX folder. Each call is one batch."""

    def __init__(self, folder: Path, threads: int):
        self._model = OnnxEmbedder(folder, threads=threads, batch=1 << 20)

    @property
    def version(self) -> str:
        """Version of onnxruntime."""
        return f"onnxruntime {version('onnxruntime')}"

    def encode(self, texts: Sequence[RoleText]) -> Vectors:
        """Vectors `[N, D]` of one batch."""
        ids = self._model.token_ids([self._prompted(text) for text in texts])
        return np.asarray(self._model.forward(ids))

    def tokens(self, text: RoleText) -> list[int] | None:
        """Token ids of the folder's tokenizer."""
        return self._model.token_ids([self._prompted(text)])[0]

    def _prompted(self, text: RoleText) -> Prompted:
        prompts = self._model.prompts
        return prompts.for_query(text.text) if text.role == "query" else prompts.for_document(text.text)
