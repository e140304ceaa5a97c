"""Texts without duplicates, split into those that an attacker learns from and those that it is tested on."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gemma4vec.errors import InputError
from gemma4vec.inversion.measures import split_words

FEWEST = 20  # texts on either side below which no figure means anything


@dataclass(frozen=True)
class Split:
    """Texts to learn from and texts to test on; no text is on both sides, nor twice on one.

    Attributes:
        train, held_out: the texts.
        train_sources, held_out_sources: name of each text's source.
        duplicates: number of texts that were left out, since an earlier one is the same.
    """

    train: list[str]
    held_out: list[str]
    train_sources: list[str]
    held_out_sources: list[str]
    duplicates: int


def normalized(text: str) -> str:
    """A text by which duplicates are known: compatibility forms, case, punctuation and white space do not count.

    Example:
        >>> normalized("Read  the File!") == normalized("read the file")
        True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(split_words(folded)) or " ".join(folded.split())


def split_texts(texts: Sequence[str], sources: Sequence[str], *, held_out: int = 1_000, seed: int = 0) -> Split:
    """Leave out duplicates and empty texts, then hold out a random part: at most a fifth.

    Args:
        texts: the texts.
        sources: name of each text's source.
        held_out: number of texts to hold out.
        seed: of the draw.

    Raises:
        InputError: fewer than 20 texts would be left on a side.
    """
    if held_out < FEWEST:
        raise InputError(f"{held_out} held-out texts say nothing; hold out at least {FEWEST}")
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        key = normalized(text)
        if key:
            first.setdefault(key, number)
    kept = np.array(list(first.values()), dtype=np.int64)
    count = min(held_out, len(kept) // 5)
    if count < FEWEST:
        raise InputError(
            f"{len(texts):,} texts, {len(kept):,} of them different: too few to hold out {FEWEST} (a fifth); give more "
            "with --texts"
        )
    order = kept[np.random.default_rng(seed).permutation(len(kept))]
    chosen, rest = sorted(order[:count].tolist()), sorted(order[count:].tolist())
    return Split(
        [texts[n] for n in rest],
        [texts[n] for n in chosen],
        [sources[n] for n in rest],
        [sources[n] for n in chosen],
        len(texts) - len(kept),
    )
