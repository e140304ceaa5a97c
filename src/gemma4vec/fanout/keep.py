"""Which of the texts that were written for a query are kept. Nothing here sees a judgment.

Shapes: N candidates, d dimensions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.inversion.held_out import normalized
from gemma4vec.retrieval.tokenize import tokenize_text

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Gates:
    """What a candidate must be.

    Attributes:
        faithful: least cosine to the query; below it a text is about something else.
        near: largest cosine to a text that is kept already; above it both say the same.
        diverse: weight of being unlike what is kept against being like the query, 0 to 1: maximal marginal relevance
            (Carbonell and Goldstein, 1998).
        words: most words of a text.
    """

    faithful: float = 0.5
    near: float = 0.97
    diverse: float = 0.3
    words: int = 32


def same_words(text: str) -> tuple[str, ...]:
    """What texts have in common that differ in case, punctuation, order and endings alone."""
    return tuple(sorted(set(tokenize_text(text)))) or (normalized(text),)


def choose(
    texts: Sequence[str],
    vectors_Nd: Vectors,
    query: str,
    query_d: Vectors,
    n: int,
    gates: Gates,
    known: Iterable[str] = (),
) -> list[int]:
    """Places of up to `n` candidates, in the order in which they are shown.

    Args:
        texts: the candidates.
        vectors_Nd: their unit vectors.
        query: its own words are never a candidate.
        query_d: its unit vector.
        n: most texts to keep.
        gates: what a candidate must be.
        known: normalized texts that are not wanted again, such as those that a decoder learned.
    """
    left_out, seen = set(known), {same_words(query)}
    cosines_N = vectors_Nd @ query_d if len(texts) else np.zeros(0, np.float32)
    passing = []
    for place, text in enumerate(texts):
        words = same_words(text)
        usable = text.strip() and words not in seen and normalized(text) not in left_out
        if usable and len(text.split()) <= gates.words and cosines_N[place] >= gates.faithful:
            passing.append(place)
            seen.add(words)
    kept: list[int] = []
    while passing and len(kept) < n:
        like_N = (vectors_Nd[passing] @ vectors_Nd[kept].T).max(axis=1) if kept else np.zeros(len(passing))
        scores_N = (1 - gates.diverse) * cosines_N[passing] - gates.diverse * like_N
        best = int(np.argmax(scores_N))
        if not kept or like_N[best] <= gates.near:
            kept.append(passing[best])
        del passing[best]
    return kept
