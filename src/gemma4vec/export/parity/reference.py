"""Our own vectors and tokens of the compared texts, and those of a model with one thing wrong.

Shapes: N texts, D dimensions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gemma4vec.export.runtimes.job import RoleText, Vectors
from gemma4vec.model.backbone.architectures import Reach
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import Tokens, pad
from gemma4vec.model.readout import READOUTS, BaseInfo
from gemma4vec.recipe import readouts
from gemma4vec.text.prompts import Prompted, Prompts

_CELLS = 4096  # of one forward pass
_NO_LIMIT = 1 << 20


class Reference:
    """The model as we run it: fp32, not compiled, one text in a row.

    Args:
        embedder: the model.
        dimension: number of leading dimensions that are kept, at unit length again.
    """

    def __init__(self, embedder: Embedder, dimension: int):
        self.embedder, self.dimension = embedder, dimension
        self.limit = embedder.max_tokens

    def prompted(self, text: RoleText, prompts: Prompts | None = None) -> Prompted:
        """A text with the prompt of its role."""
        known = prompts or self.embedder.prompts
        return known.for_query(text.text) if text.role == "query" else known.for_document(text.text)

    def read(self, texts: Sequence[RoleText], *, limit: int | None = None) -> list[Tokens]:
        """Tokens of texts, truncated to the model's limit or another one."""
        return self.embedder.read([self.prompted(text) for text in texts], limit or self.limit)

    def count(self, text: RoleText) -> int:
        """Number of tokens of a text that is not truncated."""
        (tokens,) = self.embedder.tokenizer.encode([self.prompted(text)], _NO_LIMIT)
        return tokens.length

    def vectors(self, texts: Sequence[RoleText], *, limit: int | None = None) -> Vectors:
        """Unit vectors `[N, D]`."""
        return self.of_tokens(self.read(texts, limit=limit))

    def of_tokens(self, tokens: Sequence[Tokens]) -> Vectors:
        """Unit vectors `[N, D]` of tokens."""
        order = sorted(range(len(tokens)), key=lambda i: -tokens[i].length)
        sorted_tokens = [tokens[i] for i in order]
        encoder = self.embedder.encoder
        encoder.eval()
        found: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(order), 256):
                layouts = pad(sorted_tokens[start : start + 256], _CELLS, self.embedder.tokenizer.padding_id)
                found.append(encoder(layouts).float().cpu())
        vectors_ND = np.zeros((len(tokens), found[0].shape[1]), dtype=np.float32)
        vectors_ND[order] = torch.cat(found).numpy()
        kept_ND = vectors_ND[:, : self.dimension]
        lengths_N1 = np.linalg.norm(kept_ND, axis=1, keepdims=True)
        return np.asarray(kept_ND / np.where(lengths_N1 > 0, lengths_N1, 1), dtype=np.float32)


@dataclass(frozen=True)
class Variant:
    """The model with one thing wrong.

    Attributes:
        cause: what is wrong, as a clause.
        vectors: unit vectors `[N, D]` of texts, computed in that way.
    """

    cause: str
    vectors: Callable[[Sequence[RoleText]], Vectors]


def variants(reference: Reference) -> Iterator[Variant]:
    """Every mistake that runtimes are known to make, each computed with our own weights. Nothing is loaded again."""
    embedder, encoder = reference.embedder, reference.embedder.encoder
    backbone = encoder.backbone
    other = "bidirectional" if backbone.causal else "causal"
    own = "causal" if backbone.causal else "bidirectional"
    yield _with(f"attention is {other}, not {own}", reference, lambda: _other_attention(backbone))
    if encoder.head is not None:
        yield _with("the head (dense layers) is left out", reference, lambda: _no_head(reference))
    for name in ("mean", "last_token", "first_token"):
        if name != encoder.readout.name:
            cause = f"pooling is {name}, not {encoder.readout.name}"
            yield _with(cause, reference, partial(_pooling, encoder, name))
    if backbone.reach is not None:
        half = Reach(backbone.reach.back // 2, backbone.reach.ahead // 2)
        yield _with("the sliding window is half as wide", reference, lambda: _replaced(backbone, "reach", half))
        yield _with("the sliding window is ignored", reference, lambda: _replaced(backbone, "reach", None))
    yield _with("norm weights lack the 1 that Gemma adds to them", reference, lambda: _norms(backbone))
    prompts = embedder.prompts
    if prompts.query or prompts.document:
        yield _prompts("the prompt is left out", reference, Prompts())
        yield _prompts("the prompts of queries and documents are swapped", reference, _swapped(prompts))
        yield _prompts("the prompt is there twice", reference, _twice(prompts))
    special = {"EOS": embedder.tokenizer.hf_tokenizer.eos_token_id, "BOS": embedder.tokenizer.hf_tokenizer.bos_token_id}
    for name, token in special.items():
        if token is not None:
            yield Variant(f"{name} is missing", partial(_of_tokens_without, reference, name, token))


def _with(cause: str, reference: Reference, change: Callable[[], Any]) -> Variant:
    def vectors(texts: Sequence[RoleText]) -> Vectors:
        with change():
            return reference.vectors(texts)

    return Variant(cause, vectors)


def _prompts(cause: str, reference: Reference, prompts: Prompts) -> Variant:
    def vectors(texts: Sequence[RoleText]) -> Vectors:
        read = reference.embedder.read
        return reference.of_tokens(read([reference.prompted(text, prompts) for text in texts], reference.limit))

    return Variant(cause, vectors)


def _swapped(prompts: Prompts) -> Prompts:
    return Prompts(prompts.for_document("").prompt, prompts.query)


def _twice(prompts: Prompts) -> Prompts:
    return Prompts(2 * prompts.query, 2 * prompts.document)


def _of_tokens_without(reference: Reference, name: str, token: int, texts: Sequence[RoleText]) -> Vectors:
    return reference.of_tokens(_without(reference.read(texts), name, token))


def _without(tokens: Sequence[Tokens], name: str, token: int) -> list[Tokens]:
    """Tokens without their last EOS or their first BOS; at least one is kept."""
    changed = []
    for text in tokens:
        ids = list(text.ids)
        if len(ids) > 1 and ids[-1 if name == "EOS" else 0] == token:
            ids = ids[:-1] if name == "EOS" else ids[1:]
        changed.append(text._replace(ids=ids, prompt=min(text.prompt, len(ids))))
    return changed


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _no_head(reference: Reference) -> Iterator[None]:
    encoder = reference.embedder.encoder
    with _replaced(encoder, "head", None), _replaced(reference, "dimension", encoder.readout.dimension):
        yield


@contextmanager
def _other_attention(backbone: Any) -> Iterator[None]:
    """Attend in the other mode. The window is as wide as its file says, read in the other mode's way."""
    reach = backbone.reach
    if reach is not None and backbone.causal:
        reach = backbone.architecture.reach(reach.back + 1)
    elif reach is not None:
        reach = Reach(2 * reach.back - 1, 0) if reach.back else Reach(0, 0)
    with _replaced(backbone, "reach", reach), _replaced(backbone, "causal", not backbone.causal):
        yield


@contextmanager
def _pooling(encoder: TextEncoder, name: str) -> Iterator[None]:
    settings = {"mean": readouts.Mean, "last_token": readouts.LastToken, "first_token": readouts.FirstToken}[name]()
    readout = READOUTS[name](settings, BaseInfo(encoder.backbone.hidden_size, len(encoder.backbone.layers)))
    if encoder.head is not None and readout.dimension != encoder.readout.dimension:
        readout = encoder.readout
    with _replaced(encoder, "readout", readout):
        yield


@contextmanager
def _norms(backbone: Any) -> Iterator[None]:
    """Take 1 off the factor of every RMS norm, as if a file's `weight + 1` had been written as `weight`."""
    norms = [p for name, p in backbone.model.named_parameters() if name.endswith("norm.weight")]

    def add(value: float) -> None:
        for parameter, stored in zip(norms, kept, strict=True):
            parameter.data = stored + value

    kept = [parameter.data for parameter in norms]
    add(-1.0)
    try:
        yield
    finally:
        add(0.0)
