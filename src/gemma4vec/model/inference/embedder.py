"""The finished model as its users see it: texts to unit vectors.

Shapes: N texts, D dimensions. Vectors are float32 rows of length one.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.machine.prefetch import Prefetcher
from gemma4vec.model import upstream
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.backbone.compilation import (
    CHARACTERS_WORTH_IT,
    choose_compile,
    failed_to_compile,
    run_compiled,
    run_with_eager_fallback,
    use_compile_cache,
)
from gemma4vec.model.bases.foreign_code import refuse_foreign_code
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.encoder.check_config import lacks_rows
from gemma4vec.model.packing.packed_batch import PackedBatch, Tokens, pack
from gemma4vec.recipe.renamed import first_names
from gemma4vec.text.prompts import Document, Prompted, Prompts
from gemma4vec.text.text_embedder import TextEmbedder

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]  # texts done, texts in all
Lengths = NDArray[np.int32]

# Texts are sorted by length and encoded in windows of this many: enough for dense packing, little to hold at once.
_WINDOW = 1024
_ROW_TOKENS = 256
# Cells of a micro-batch. Few cells suit a processor's caches; a GPU needs more, or it idles between small kernels.
_TOKENS_PER_FORWARD = {"cpu": 2048, "cuda": 16_384}


class Embedder:
    """Encodes queries and documents with their prompts.

    `Embedder.load` opens a run folder, a sentence-transformers folder, a hub id or `bundled:NAME`.

    Attributes:
        tokens_per_forward: cells of one micro-batch; it affects speed and memory alone.
        compiles_from: number of characters of a job from which layers are compiled, once.
        folder: the folder that the model was opened from; None for a base and during training.
        weights: hash of its weights' contents (`model.bases.weights`), whatever its settings; None during training.
        read: `read(texts, max_tokens)`: what the backbone reads of texts with their prompts.
    """

    def __init__(
        self,
        embedding_model: EmbeddingModel,
        *,
        name: str,
        fingerprint: str,
        max_tokens: int,
        weights: str | None = None,
        settings: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        self.encoder = embedding_model.encoder
        self.read = embedding_model.read
        self.tokenizer = embedding_model.tokenizer
        self.prompts: Prompts = embedding_model.prompts
        self.name = name
        self.fingerprint = fingerprint
        self.weights = weights
        self.max_tokens = max_tokens
        self.folder = folder
        self._settings = settings or {}
        self._compiled: bool | None = None
        device = self.encoder.backbone.device.type
        self.tokens_per_forward = _TOKENS_PER_FORWARD.get(device, 2048)
        self.compiles_from = CHARACTERS_WORTH_IT.get(device, CHARACTERS_WORTH_IT["cpu"])

    @staticmethod
    def load(
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_tokens: int | None = None,
    ) -> "TextEmbedder":
        """Open a model for encoding; `dtype` is "fp32", "bf16" or None for what is fast here.

        Raises:
            InputError: there is no such model, or the folder belongs to another tool.
            WorkError: attention differs from the saved mode (see `model.backbone.attention_probe`).
        """
        from gemma4vec.model.inference.load import open_embedder

        return open_embedder(str(model), device=device, dtype=dtype, max_tokens=max_tokens)

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return self.encoder.dimension

    def encode_query(self, queries: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of queries, with the model's query prompt."""
        return self._encode([self.prompts.for_query(query) for query in queries], progress)

    def encode_document(self, documents: Sequence[str | Document], *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of documents, with the model's document prompt and their titles."""
        return self._encode([self.prompts.for_document(document) for document in documents], progress)

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of texts with `prompt` put before each."""
        return self._encode([Prompted(prompt, text) for text in texts], progress)

    def encode_counted(self, texts: Sequence[Prompted], *, progress: Progress | None = None) -> tuple[Vectors, Lengths]:
        """`[N, D]` vectors of texts with their prompts, and `[N]` numbers of tokens that the backbone read of each."""
        lengths_N = np.zeros(len(texts), dtype=np.int32)
        return self._encode(texts, progress, lengths_N), lengths_N

    def describe(self) -> dict[str, Any]:
        """Settings that explain a score; stored with each one."""
        backbone = self.encoder.backbone
        return {
            "kind": "gemma4vec",
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "device": str(backbone.device),
            "attention": "causal" if backbone.causal else "bidirectional",
            "attention_backend": "sdpa",
            "layout": "packed",
            "readout": self.encoder.readout.name,
            "pool_prompt": self.encoder.readout.pool_prompt,
            "readout_settings": first_names(
                self.encoder.readout.settings.model_dump(mode="json", exclude={"name"}), "model.readout"
            ),
            "dimension": self.dimension,
            "max_tokens": self.max_tokens,
            "prompts": self.prompts.as_dict(),
        } | self._settings

    def encode_tokens(self, tokens: Sequence[Tokens]) -> Vectors:
        """`[N, D]` vectors of texts that `read` has tokenized, all at once: for callers with batches of their own."""
        training = self.encoder.training
        if training:
            self.encoder.eval()
        try:
            with torch.inference_mode():
                return self._forward(self._pack(tokens)).float().cpu().numpy()
        finally:
            if training:
                self.encoder.train()

    def compile(self) -> None:
        """Compile the layers, however little there is to encode. If that fails, report why and continue uncompiled."""
        backbone = self.encoder.backbone
        self._compiled = False
        choice = choose_compile("auto", steps=None, minutes=None)
        if backbone.compiled or backbone.compile_failed:
            return
        if not choice.on:
            self._log_once(f"encoding with uncompiled layers: {choice.reason}")
            return
        use_compile_cache()
        shape = max(2, self.tokens_per_forward // _ROW_TOKENS), _ROW_TOKENS
        try:
            with torch.inference_mode():
                run_compiled(backbone, lambda: check(backbone, *shape))
            self._compiled = True
        except upstream.compiler_errors() as error:
            self._log_once(f"encoding with uncompiled layers: {failed_to_compile(error).reason}")

    def _encode(
        self, texts: Sequence[Prompted], progress: Progress | None, lengths_N: Lengths | None = None
    ) -> Vectors:
        vectors_ND = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: (-len(texts[i].text), i))
        self._compile_if_worth_it(texts)
        windows = [order[start : start + _WINDOW] for start in range(0, len(order), _WINDOW)]
        laid_out = (self._lay_out([texts[i] for i in window]) for window in windows)
        done = 0

        def fetch(window: list[int], found_ND: Tensor) -> None:
            nonlocal done
            vectors_ND[window] = found_ND.float().cpu().numpy()
            done += len(window)
            if progress:
                progress(done, len(order))

        training = self.encoder.training
        self.encoder.eval()
        try:
            # A GPU computes one window while a thread prepares the next; vectors are fetched one window late.
            prefetched = Prefetcher(laid_out, depth=1) if len(windows) > 1 else laid_out
            with torch.inference_mode(), closing(prefetched) as ready:
                late: tuple[list[int], Tensor] | None = None
                for window, layouts in zip(windows, ready, strict=True):
                    if lengths_N is not None:
                        for batch in layouts:
                            lengths_N[[window[i] for i in batch.documents]] = batch.lengths_N.cpu().numpy()
                    found_ND = self._forward(layouts)
                    if late:
                        fetch(*late)
                    late = window, found_ND
                if late:
                    fetch(*late)
        finally:
            self.encoder.train(training)
        return vectors_ND

    def _compile_if_worth_it(self, texts: Sequence[Prompted]) -> None:
        """Compile the layers for a large job, once."""
        characters = sum(min(len(text.text), 5 * self.max_tokens) for text in texts)
        if self._compiled is None and characters >= self.compiles_from:
            self.compile()

    def _log_once(self, line: str) -> None:
        remarks = self.encoder.backbone.remarks
        if line not in remarks:
            remarks.add(line)
            logger.info(line)

    def _lay_out(self, texts: Sequence[Prompted]) -> list[PackedBatch]:
        return self._pack(self.read(texts, self.max_tokens))

    def _pack(self, tokens: Sequence[Tokens]) -> list[PackedBatch]:
        share = self.encoder.reason_not_to_share(training=False) is None
        return pack(tokens, _ROW_TOKENS, self.tokens_per_forward, self.tokenizer.padding_id, share=share)

    def _forward(self, layouts: Sequence[PackedBatch]) -> Tensor:
        vectors_ND: Tensor = run_with_eager_fallback(
            self.encoder.backbone, lambda: self.encoder(layouts), self._uncompiled
        )
        return vectors_ND

    def _uncompiled(self, reason: str) -> None:
        self._log_once(f"encoding with uncompiled layers from here on: {reason}")


class SentenceTransformerEmbedder:
    """A model that gemma4vec did not train, run by sentence-transformers with its own prompts and limits."""

    def __init__(
        self,
        path: str,
        *,
        name: str,
        fingerprint: str,
        weights: str | None = None,
        device: str,
        dtype: torch.dtype,
        limit: int | None,
    ):
        from sentence_transformers import SentenceTransformer

        try:
            refuse_foreign_code(Path(path))
            self.model = SentenceTransformer(
                path,
                device=device,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
                local_files_only=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"sentence-transformers cannot open {path}: {reason}") from error
        self._refuse_tokens_without_rows(path)
        if limit is not None:
            self.model.max_seq_length = limit
        self.name = name
        self.fingerprint = fingerprint
        self.weights = weights
        self.folder = Path(path)
        self.dtype = dtype

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return int(self.model.get_embedding_dimension() or 0)

    def encode_query(self, queries: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of queries, with the model's query prompt, if it has one."""
        return self._encode(list(queries), "query", progress)

    def encode_document(self, documents: Sequence[str | Document], *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of documents: title, space, text, as in BEIR, after the model's document prompt."""
        prompts = Prompts()
        return self._encode([prompts.for_document(document).text for document in documents], "document", progress)

    def encode(self, texts: Sequence[str], prompt: str = "", *, progress: Progress | None = None) -> Vectors:
        """`[N, D]` vectors of texts with `prompt` put before each."""
        return self._encode([prompt + text for text in texts], None, progress)

    def describe(self) -> dict[str, Any]:
        """Settings that explain a score; stored with each one."""
        return {
            "kind": "sentence-transformers",
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "dimension": self.dimension,
            "max_tokens": self.model.max_seq_length,
            "prompts": dict(self.model.prompts),
        }

    def _refuse_tokens_without_rows(self, path: str) -> None:
        """As a base is checked: a text with such a token would fail in the middle of the work."""
        transformer, tokenizer = getattr(self.model[0], "model", None), getattr(self.model[0], "tokenizer", None)
        if transformer is not None and tokenizer is not None and hasattr(tokenizer, "added_tokens_decoder"):
            rows = transformer.get_input_embeddings().weight.shape[0]
            lacks_rows(tokenizer, rows, tokenizer.pad_token_id or 0, path)

    def _encode(self, texts: list[str], task: str | None, progress: Progress | None) -> Vectors:
        encode = {"query": self.model.encode_query, "document": self.model.encode_document}.get(
            task or "", self.model.encode
        )
        order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
        vectors_ND = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(order), _WINDOW):
            window = order[start : start + _WINDOW]
            vectors_ND[window] = encode(
                [texts[i] for i in window], normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            )
            if progress:
                progress(min(start + _WINDOW, len(order)), len(order))
        return vectors_ND
