"""The model of a bulk encoding: vectors, and for each text how many tokens were read and whether it was truncated.

Shapes: N texts, D dimensions.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.text.prompts import Document, Prompted, Prompts
from gemma4vec.text.text_embedder import TextProgress, Vectors

if TYPE_CHECKING:
    from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder


class Encoded(NamedTuple):
    """Vectors float32[N, D] of length one, tokens int32[N] that were read of each text, and truncated bool[N]."""

    vectors_ND: Vectors
    tokens_N: NDArray[np.int32]
    truncated_N: NDArray[np.bool_]


class BulkEmbedder(Protocol):
    """A model that a bulk encoding uses; tests have one without weights."""

    name: str
    dimension: int
    lengths: tuple[int, ...]

    def identity(self) -> dict[str, Any]:
        """What vectors depend on, as JSON values."""

    def prompt(self, queries: bool) -> str:
        """The prompt of queries or of documents."""

    def encode(
        self, documents: Sequence[Document], queries: bool, *, characters: int, progress: TextProgress | None = None
    ) -> Encoded:
        """Encode texts; `characters` is the number of those of the whole job."""


Opener = Callable[[int | None, int], BulkEmbedder]
"""Opens the model with a number of threads (None: the usual one) in the worker of this number, from 0."""


@dataclass(frozen=True)
class ModelOpener:
    """Opens a run (folder, id or `latest`), a saved model or a base."""

    model: str

    def __call__(self, threads: int | None = None, worker: int = 0) -> BulkEmbedder:
        """Open the model. Where there are several GPUs, workers use them in turn.

        Raises:
            InputError: there is no such model, or its run is not finished.
        """
        if threads is not None:
            os.environ["RAYON_NUM_THREADS"] = str(threads)  # tokenizers
        import torch

        from gemma4vec.ledger.run_folder import named_run
        from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder

        if threads is not None:
            torch.set_num_threads(threads)
        if torch.cuda.device_count() > 1:
            torch.cuda.set_device(worker % torch.cuda.device_count())
        run = named_run(self.model, home())
        opened = Embedder.load(run.path if run is not None else self.model)
        if isinstance(opened, Embedder):
            return CountingEmbedder(opened, prefix_lengths(opened.folder, opened.dimension))
        assert isinstance(opened, SentenceTransformerEmbedder)
        return CountingSentenceTransformer(opened)


def prefix_lengths(folder: Path | None, dimension: int) -> tuple[int, ...]:
    """Trained lengths of vector prefixes, the whole one included; empty without Matryoshka training."""
    if folder is None:
        return ()
    from gemma4vec.export.source import lengths_of
    from gemma4vec.ledger.run_folder import named_run

    return tuple(lengths_of(folder, named_run(folder.resolve().parent, home()), dimension))


class CountingEmbedder:
    """A model of gemma4vec."""

    def __init__(self, embedder: "Embedder", lengths: tuple[int, ...]):
        self.embedder = embedder
        self.name, self.dimension, self.lengths = embedder.name, embedder.dimension, lengths
        self._worth_compiling = embedder.compiles_from

    def identity(self) -> dict[str, Any]:
        described = self.embedder.describe()
        return {
            "name": self.name,
            "fingerprint": self.embedder.fingerprint,
            "max_tokens": self.embedder.max_tokens,
            "compute_dtype": described["dtype"],
            "device": described["device"].partition(":")[0],
        }

    def prompt(self, queries: bool) -> str:
        return self.embedder.prompts.query if queries else self.embedder.prompts.document

    def encode(
        self, documents: Sequence[Document], queries: bool, *, characters: int, progress: TextProgress | None = None
    ) -> Encoded:
        # The whole job decides about compilation, so that a shard has the same bytes whoever encodes it and when.
        self.embedder.compiles_from = 0 if characters >= self._worth_compiling else 2**62
        prompts = self.embedder.prompts
        texts = [prompts.for_query(one.text) if queries else prompts.for_document(one) for one in documents]
        vectors_ND, tokens_N = self.embedder.encode_counted(texts, progress=progress)
        return Encoded(vectors_ND, tokens_N, self._truncated(texts, tokens_N))

    def _truncated(self, texts: Sequence[Prompted], tokens_N: NDArray[np.int32]) -> NDArray[np.bool_]:
        """A text is truncated if one token more of room makes it longer; short ones need no second look."""
        limit = self.embedder.max_tokens
        found_N = np.zeros(len(texts), dtype=np.bool_)
        long = np.flatnonzero(tokens_N >= limit - self.embedder.encoder.readout.reserved).tolist()
        if long:
            roomier = self.embedder.read([texts[row] for row in long], limit + 1)
            found_N[long] = [one.length > tokens_N[row] for row, one in zip(long, roomier, strict=True)]
        return found_N


class CountingSentenceTransformer:
    """A model that sentence-transformers runs; texts are tokenized twice, since it does not say what it read."""

    def __init__(self, embedder: "SentenceTransformerEmbedder"):
        self.embedder = embedder
        self.name, self.dimension = embedder.name, embedder.dimension
        self.lengths: tuple[int, ...] = ()
        if getattr(embedder.model, "tokenizer", None) is None:
            raise InputError(f"{self.name} has no tokenizer that counts tokens; encode with a model of texts")

    def identity(self) -> dict[str, Any]:
        described = self.embedder.describe()
        return {
            "name": self.name,
            "fingerprint": self.embedder.fingerprint,
            "max_tokens": described["max_tokens"],
            "compute_dtype": described["dtype"],
            "device": described["device"].partition(":")[0],
        }

    def prompt(self, queries: bool) -> str:
        return str(self.embedder.model.prompts.get("query" if queries else "document") or "")

    def encode(
        self, documents: Sequence[Document], queries: bool, *, characters: int, progress: TextProgress | None = None
    ) -> Encoded:
        if queries:
            vectors_ND = self.embedder.encode_query([one.text for one in documents], progress=progress)
        else:
            vectors_ND = self.embedder.encode_document(documents, progress=progress)
        prompt, plain = self.prompt(queries), Prompts()
        texts = [prompt + (one.text if queries else plain.for_document(one).text) for one in documents]
        whole_N = np.array([len(ids) for ids in self.embedder.model.tokenizer(texts)["input_ids"]], dtype=np.int32)
        limit = self.embedder.model.max_seq_length or np.iinfo(np.int32).max
        return Encoded(vectors_ND, np.minimum(whole_N, limit).astype(np.int32), whole_N > limit)
