"""Texts and their vectors for a decoder: each text once, some of them held out, all embedded by the finished model.

Shapes: N texts, d dimensions.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inference.load import find_model_folder
from gemma4vec.model.inverter.identity import encoder_identity
from gemma4vec.model.save.output_dimension import folder_dimension
from gemma4vec.recipe import schema
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.engine.distributed import World

Vectors = NDArray[np.float32]

# Largest share of the texts that is kept from training.
_MOST_HELD_OUT = 0.1
# Texts that are embedded between two writes to disk.
_CHUNK = 4096


@dataclass(frozen=True)
class VectorSource:
    """Whose vectors they are: the model's name, and its identity (`model.inverter.identity`)."""

    name: str
    identity: str


@dataclass(frozen=True)
class EmbeddedTexts:
    """Texts to train on and texts that are held out, and their vectors `[N, d]`."""

    trained: list[str]
    vectors_Nd: Vectors
    kept: list[str]
    kept_vectors: Vectors
    source: VectorSource


def split_texts(texts: Sequence[str], wanted: int) -> tuple[list[str], list[str]]:
    """(texts to train on, texts that are held out), each text once; empty texts are left out.

    Two texts are one if they differ in case, punctuation or white space alone. A text's hash decides whether it is held
    out, so that other data with the same text most likely holds it out too; `wanted` of them, at most a tenth.
    """
    first: dict[str, str] = {}
    for text in texts:
        if text.strip():
            first.setdefault(words_key(text), text)
    count = min(wanted, int(_MOST_HELD_OUT * len(first)))
    kept = set(sorted(first)[:count])
    return [text for key, text in first.items() if key not in kept], [first[key] for key in sorted(kept)]


def embed_texts(model: TextEmbedder, texts: Sequence[str], role: str) -> Vectors:
    """Unit vectors `[N, d]` of texts in the prompt of their role; those that were computed before come from disk.

    Raises:
        InputError: the model's vectors are not finite.
    """
    cached = CachedEmbedder(model)
    encode = cached.encode_query if role == "query" else cached.encode_document
    vectors_Nd = np.zeros((len(texts), cached.dimension), dtype=np.float32)
    with ProgressBar("embedding", "texts") as bar:
        for start in range(0, len(texts), _CHUNK):
            part = slice(start, start + _CHUNK)
            vectors_Nd[part] = encode(list(texts[part]))
            bar(min(start + _CHUNK, len(texts)), len(texts))
    if not np.isfinite(vectors_Nd).all():
        raise InputError(f"task.embedder: {model.name} makes vectors that are not finite; train it again")
    return vectors_Nd


def embedded_texts(texts: Sequence[str], settings: schema.VectorToText, width: int | None = None) -> EmbeddedTexts:
    """Split texts and embed them, each once.

    With a `width`, vectors are random ones of that number of dimensions and no model is opened: where only time and
    memory matter.

    Raises:
        InputError: there is no such model, or its vectors are not finite.
    """
    trained, kept = split_texts(texts, settings.held_out)
    if width is not None:
        drawn_Nd = np.random.default_rng(0).standard_normal((len(trained) + len(kept), width)).astype(np.float32)
        all_Nd = drawn_Nd / np.linalg.norm(drawn_Nd, axis=1, keepdims=True)
        source = VectorSource("random vectors", "")
    else:
        with World().first_before_others():  # which then find them on disk
            model = open_embedder(settings)
            all_Nd = embed_texts(model, [*trained, *kept], settings.role)
        source = VectorSource(model.name, encoder_identity(model))
    return EmbeddedTexts(trained, all_Nd[: len(trained)], kept, all_Nd[len(trained) :], source)


def open_embedder(settings: schema.VectorToText) -> TextEmbedder:
    """Open the model whose vectors are inverted.

    Raises:
        InputError: there is no such model.
    """
    try:
        model = Embedder.load(settings.embedder)
    except InputError as error:
        raise InputError(f"task.embedder: {error}") from error
    if isinstance(model, Embedder):
        model.compiles_from = sys.maxsize  # the decoder's layers are compiled; compilers have global state
    return model


def vector_width(task: schema.Task) -> int | None:
    """Dimensions of the vectors that a decoder reads, 768 where the embedder's small files do not say.

    None for every other task.
    """
    if not isinstance(task, schema.VectorToText):
        return None
    return folder_dimension(find_model_folder(task.embedder)) or 768
