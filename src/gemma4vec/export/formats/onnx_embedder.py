"""Encode texts with an exported ONNX folder. It needs onnxruntime and tokenizers, and neither torch nor transformers.

    import gemma4vec as g4v

    model = g4v.OnnxEmbedder("exports/onnx-f32")
    scores = model.encode_query(["open a file"]) @ model.encode_document(["def open_file(path): ..."]).T

Shapes: N texts, D dimensions.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gemma4vec.errors import InputError
from gemma4vec.text.encodable import encodable
from gemma4vec.text.prompts import Document, Prompted, Prompts
from gemma4vec.text.text_embedder import TextProgress, Vectors

MODEL_FILE, SETTINGS_FILE, TOKENIZER_FILE = "model.onnx", "gemma4vec_onnx.json", "tokenizer.json"


class OnnxEmbedder:
    """Encodes queries and documents with their prompts; one of the classes that `text.text_embedder` describes.

    Args:
        folder: what `gemma4vec export RUN --to onnx` wrote.
        threads: of one forward pass; None: as many as there are cores.
        batch: texts of a forward pass; texts of similar length go together.

    Raises:
        InputError: onnxruntime is missing, or the folder is not such an export.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, batch: int = 16):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError("onnxruntime is missing; pip install 'gemma4vec[export]'") from error
        self.folder = Path(folder)
        try:
            settings = json.loads((self.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            self.name, self.fingerprint = str(settings["name"]), str(settings["fingerprint"])
            self.dimension, self.max_tokens = int(settings["dimension"]), int(settings["max_tokens"])
            self.prompts = Prompts(str(settings["prompts"]["query"]), str(settings["prompts"]["document"]))
            self._padding = int(settings["padding_id"])
            self._tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER_FILE))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or 0
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                str(self.folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # tokenizers and onnxruntime raise plain Exception
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.folder} is no export of gemma4vec to ONNX, or damaged ({reason})") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._batch = batch

    def describe(self) -> dict[str, Any]:
        """Settings that explain a score."""
        return {
            "kind": "onnx",
            "dtype": "float32",
            "dimension": self.dimension,
            "max_tokens": self.max_tokens,
            "prompts": self.prompts.as_dict(),
        }

    def encode_query(self, queries: Sequence[str], *, progress: TextProgress | None = None) -> Vectors:
        """`[N, D]` unit vectors of queries, with the model's query prompt."""
        return self._encode([self.prompts.for_query(query) for query in queries], progress)

    def encode_document(self, documents: Sequence[str | Document], *, progress: TextProgress | None = None) -> Vectors:
        """`[N, D]` unit vectors of documents, with the model's document prompt and their titles."""
        return self._encode([self.prompts.for_document(document) for document in documents], progress)

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: TextProgress | None = None) -> Vectors:
        """`[N, D]` unit vectors of texts with `prompt` put before each."""
        return self._encode([Prompted(prompt, text) for text in texts], progress)

    def token_ids(self, texts: Sequence[Prompted]) -> list[list[int]]:
        """Token ids of texts with their prompts, special tokens included, at most `max_tokens` each."""
        whole = [encodable(text.prompt + text.text) for text in texts]
        return [encoding.ids or [self._padding] for encoding in self._tokenizer.encode_batch(whole)]

    def _encode(self, texts: Sequence[Prompted], progress: TextProgress | None) -> Vectors:
        ids = self.token_ids(texts)
        order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
        vectors_ND = np.zeros((len(ids), self.dimension), dtype=np.float32)
        for start in range(0, len(order), self._batch):
            part = order[start : start + self._batch]
            vectors_ND[part] = self.forward([ids[i] for i in part])
            if progress:
                progress(min(start + self._batch, len(order)), len(order))
        return vectors_ND

    def forward(self, ids: Sequence[Sequence[int]]) -> Vectors:
        """`[N, D]` unit vectors of token ids, in one forward pass."""
        width = max(map(len, ids))
        tokens_BS = np.full((len(ids), width), self._padding, dtype=np.int64)
        mask_BS = np.zeros((len(ids), width), dtype=np.int64)
        for row, tokens in enumerate(ids):
            tokens_BS[row, : len(tokens)] = tokens
            mask_BS[row, : len(tokens)] = 1
        (vectors_BD,) = self._session.run(None, {"input_ids": tokens_BS, "attention_mask": mask_BS})
        return np.asarray(vectors_BD, dtype=np.float32)
