"""Several texts for a vector, embedded again: the nearest one is taken, not the likeliest.

Shapes: N vectors, d dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gemma4vec.errors import InputError
from gemma4vec.inversion.decoder import VectorDecoder
from gemma4vec.text.sanitize import sanitize
from gemma4vec.text.text_embedder import TextEmbedder

Vectors = NDArray[np.float32]
Role = Literal["query", "document"]
How = Literal["greedy", "sampled", "beam", "edited"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Candidate:
    """A text for a vector.

    Attributes:
        text: without control characters.
        cosine: of the text's own vector and the target.
        how: how the text was found.
        cleaned: number of control characters, and of bytes that are no text, that were taken out.
    """

    text: str
    cosine: float
    how: How
    cleaned: int = 0


def clean(text: str) -> tuple[str, int]:
    """(text without control characters and without replacements of undecodable bytes, number of those)."""
    safe = sanitize(text)
    return safe.replace(_REPLACEMENT, ""), safe.count(_REPLACEMENT)


def embed(encoder: TextEmbedder, role: Role, texts: Sequence[str]) -> Vectors:
    """Unit vectors `[N, d]` of texts in the prompt of their role."""
    return encoder.encode_query(list(texts)) if role == "query" else encoder.encode_document(list(texts))


def find_candidates(
    decoder: VectorDecoder,
    encoder: TextEmbedder,
    vectors_Nd: Vectors,
    n: int,
    *,
    beams: int = 0,
    seed: int = 0,
    first: int = 0,
) -> list[list[Candidate]]:
    """Up to `n` different texts for each vector, nearest first; of equally near ones the one that was found first.

    The first is the greedy one, then those of beam search, the rest are sampled.

    Args:
        decoder: of this encoder.
        encoder: embeds the texts again.
        vectors_Nd: the targets, of unit length.
        n: number of texts to write for each.
        beams: how many of them beam search finds.
        seed: of sampled texts.
        first: number of the first vector among all: the draws of a vector do not depend on how many come before it.

    Raises:
        InputError: `n` is below 1, or there are more beams than texts.
    """
    if n < 1 or not 0 <= beams <= n:
        raise InputError(f"n: {n} texts and {beams} beams a vector; give at least one text, and beams among them")
    rest = n - 1 - beams
    found: list[list[tuple[str, int, How]]] = [[] for _ in vectors_Nd]

    def add(number: int, text: str, how: How) -> None:
        safe, removed = clean(text)
        if all(safe != other for other, _, _ in found[number]):
            found[number].append((safe, removed, how))

    if beams < n:
        for number, written in enumerate(decoder.greedy(vectors_Nd)):
            add(number, decoder.text(written), "greedy")
    if beams:
        for number, several in enumerate(decoder.beams(vectors_Nd, beams)):
            for written in several:
                add(number, decoder.text(written), "beam")
    if rest > 0:
        for number, several in enumerate(decoder.nucleus(vectors_Nd, rest, seed=seed, first=first)):
            for written in several:
                add(number, decoder.text(written), "sampled")
    different = list(dict.fromkeys(text for texts in found for text, _, _ in texts))
    vectors = dict(zip(different, embed(encoder, decoder.facts.role, different), strict=True))
    ranked = []
    for target_d, texts in zip(vectors_Nd, found, strict=True):
        scored = [Candidate(text, float(vectors[text] @ target_d), how, removed) for text, removed, how in texts]
        ranked.append(sorted(scored, key=lambda one: -one.cosine))
    return ranked
