"""The model of a server: requests to tokens (in the reading thread), tokens to vectors (in the model thread)."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import named_run
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.model.save.served_folder import matryoshka_dimensions
from gemma4vec.model.save.write_model import trained_lengths
from gemma4vec.model.tokenize.tokenizer import added_tokens
from gemma4vec.recipe.load import parse_dump
from gemma4vec.serving.http.api_errors import bad_request
from gemma4vec.serving.http.server_settings import ServerSettings
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Prompted, Prompts

_NO_LIMIT = 2**31 - 1
_WORDS = [
    "return",
    "the",
    "path",
    "of",
    "a",
    "file",
    "and",
    "close",
    "it",
    "or",
    "open",
    "read",
    "write",
    "sort",
    "list",
    "tree",
    "graph",
    "data",
    "for",
    "if",
    "else",
]
# A processor computes half of what it could in one pass: a query that comes meanwhile waits for the whole pass.
_SHARE_OF_A_PASS = {"cpu": 0.5}
_SHARE_ELSEWHERE = 0.75  # so that texts that do not fill their rows still fit into one pass


class ReadText(NamedTuple):
    """A tokenized text; `whole` is its number of tokens before it was truncated, with prompt and special tokens."""

    tokens: Tokens
    whole: int
    truncated: bool


class ServedModel:
    """An embedder, taken apart into its two steps.

    Raises:
        InputError: sentence-transformers would run the model, which cannot be taken apart.
    """

    def __init__(self, embedder: Embedder, *, name: str | None = None, lengths: Sequence[int] = ()):
        if not isinstance(embedder, Embedder):
            raise InputError(
                f"{embedder.name} is a model of another tool; serve a run or a folder that gemma4vec saved"
            )
        self.embedder = embedder
        self.name = name or embedder.name
        self.dimensions = tuple(sorted({*lengths, embedder.dimension}))
        self._opening, self._closing = added_tokens(embedder.tokenizer.hf_tokenizer)
        self._vocabulary = int(embedder.encoder.backbone.config.vocab_size)

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint."""
        return self.embedder.fingerprint

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return self.embedder.dimension

    @property
    def prompts(self) -> Prompts:
        """Its prompts for queries and documents."""
        return self.embedder.prompts

    @property
    def max_tokens(self) -> int:
        """Limit of a text with its prompt and special tokens."""
        return max(1, self.embedder.max_tokens - self.embedder.encoder.readout.reserved)

    @property
    def tokens_per_forward(self) -> int:
        """Number of tokens in one forward pass that suits the device."""
        share = _SHARE_OF_A_PASS.get(self.embedder.encoder.backbone.device.type, _SHARE_ELSEWHERE)
        return int(share * self.embedder.tokens_per_forward)

    def describe(self) -> dict[str, Any]:
        """The embedder's settings, as JSON values."""
        return self.embedder.describe()

    def read(self, texts: Sequence[Prompted]) -> list[ReadText]:
        """Tokenize texts as the embedder does, and say which are over the limit."""
        tokenizer, readout, limit = self.embedder.tokenizer, self.embedder.encoder.readout, self.max_tokens
        whole = tokenizer.encode(texts, _NO_LIMIT)
        over = [index for index, tokens in enumerate(whole) if tokens.length > limit]
        read = list(whole)
        for index, tokens in zip(over, tokenizer.encode([texts[i] for i in over], limit), strict=True):
            read[index] = tokens
        prepared = readout.prepare(read, texts, tokenizer.hf_tokenizer)
        return [
            ReadText(tokens, before.length, before.length > limit)
            for tokens, before in zip(prepared, whole, strict=True)
        ]

    def from_ids(self, ids: Sequence[Sequence[int]]) -> list[Prompted]:
        """Token ids as texts for `read`. They are all that the model reads: prompt and special tokens included.

        Raises:
            ApiError: 400: the readout must know the prompt; ids outside the vocabulary, or without special tokens.
        """
        readout, prompts = self.embedder.encoder.readout, self.prompts
        has_prompts = bool(prompts.query or prompts.document)
        if readout.reserved or "context" in readout.needs or (has_prompts and not readout.pool_prompt):
            raise bad_request(f"the readout {readout.name} must know where the prompt ends; send texts", "input")
        opening, closing = self._opening, self._closing
        for index, one in enumerate(ids):
            at = f"input[{index}]"
            if not all(0 <= token < self._vocabulary for token in one):
                raise bad_request(f"{at} has token ids outside 0 to {self._vocabulary - 1}", at, "invalid_tokens")
            if list(one[: len(opening)]) != opening or (closing and list(one[-len(closing) :]) != closing):
                raise bad_request(
                    f"{at} must start with {opening} and end with {closing}, and have its prompt: token ids are all "
                    "that the model reads, by its own tokenizer",
                    at,
                    "invalid_tokens",
                )
        return [Prompted("", PretokenizedText(list(one))) for one in ids]

    def encode(self, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """Unit vectors `[N, D]`."""
        return self.embedder.encode_tokens(tokens)

    def warm_up(self, batch_tokens: int, *, compile_layers: bool) -> float:
        """Encode texts of every size, so that no request waits for a kernel; returns tokens a second of full batches.

        Compiled layers are planned again for the first rectangle of a new kind: one row or several, few columns or
        many, with or without a prefix that texts share.
        """
        if compile_layers:
            self.embedder.compile()
            backbone = self.embedder.encoder.backbone
            backbone.fast = replace(backbone.fast, single_rows=True)  # a query alone is a rectangle of one row
        generator = random.Random(0)
        alike = " ".join(generator.choices(_WORDS, k=12))  # texts share a beginning where a model has no prompts, too

        def texts(count: int, words: int, role: str) -> list[Tokens]:
            own = [" ".join(generator.choices(_WORDS, k=max(1, words))) for _ in range(count)]
            prompted = {
                "query": self.prompts.for_query,
                "document": self.prompts.for_document,
                "none": lambda text: Prompted("", text),
                "alike": lambda text: Prompted("", f"{alike} {text}"),
            }[role]
            return [text.tokens for text in self.read([prompted(text) for text in own])]

        limit, full = self.max_tokens, max(1, batch_tokens // 60)
        kinds = ((1, 4), (2, 3), (3, 40), (16, 20), (2, min(limit, 300)), (1, limit), (full, 40))
        for role in ("query", "document", "none", "alike"):
            for count, words in kinds:
                self.encode(texts(count, words, role))
        rate = 1.0
        for _ in range(2):
            read = texts(full, 40, "document")
            started = time.perf_counter()
            self.encode(read)
            rate = sum(tokens.length for tokens in read) / max(time.perf_counter() - started, 1e-9)
        return rate


def open_served_model(settings: ServerSettings) -> ServedModel:
    """Load the model of a server; the attention probe runs as always.

    Raises:
        InputError, WorkError: as `Embedder.load`; or the model is one of another tool.
    """
    embedder = Embedder.load(
        settings.model, device=settings.device, dtype=settings.dtype, max_tokens=settings.max_tokens
    )
    return ServedModel(embedder, name=settings.name, lengths=_lengths(embedder))  # type: ignore[arg-type]


def _lengths(embedder: Any) -> list[int]:
    """Trained lengths of prefixes: what the folder says; of one from before folders said it, the run's recipe."""
    folder: Path | None = embedder.folder
    if folder is None:
        return []
    said = matryoshka_dimensions(folder)
    run = None if said else named_run(folder.resolve().parent, home())
    if run is None or not (run.path / "recipe.yaml").is_file():
        return said
    return trained_lengths(parse_dump(run.recipe_text, str(run.path / "recipe.yaml")), embedder.dimension)
