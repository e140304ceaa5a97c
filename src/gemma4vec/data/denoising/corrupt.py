"""A text with hidden spans as what an encoder reads and what a decoder restores. Pure functions on token ids.

Raffel et al. 2020 (arXiv:1910.10683, figure 2): the encoder reads a sentinel in place of each span, and the target is
each sentinel with the tokens that it hides, in order.

    text      a b c d e f g          hidden  b c, f
    encoder   a <0> d e <1> g
    target    <0> b c <1> f <eos>    decoder reads  <bos> <0> b c <1> f
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.denoising.spans import hide
from gemma4vec.recipe.denoising import Denoiser


@dataclass(frozen=True)
class Corrupted:
    """Token ids of one corrupted text.

    Attributes:
        encoder: what the encoder reads.
        decoder: what the decoder reads: the target, one place later, after `start`.
        target: what the decoder predicts at each place; as long as `decoder`.
    """

    encoder: NDArray[np.int64]
    decoder: NDArray[np.int64]
    target: NDArray[np.int64]


def corrupt(
    ids: Sequence[int], hidden: NDArray[np.bool_], sentinels: Sequence[int], *, start: int, end: int
) -> Corrupted:
    """Replace each hidden span by a sentinel, and put what was hidden into the target.

    Args:
        ids: tokens of the text.
        hidden: which of them are hidden; not the first one.
        sentinels: ids of tokens that mark spans, the first span's first.
        start: token that the decoder reads first.
        end: last token of the target.

    Raises:
        ValueError: there are fewer sentinels than spans.
    """
    whole = np.asarray(ids, dtype=np.int64)
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    places = np.flatnonzero(begins)
    if len(places) > len(sentinels):
        raise ValueError(f"{len(places)} spans, {len(sentinels)} sentinels")
    marks = np.asarray(sentinels[: len(places)], dtype=np.int64)
    shown = whole.copy()
    shown[places] = marks
    restored = np.flatnonzero(hidden)
    target = np.concatenate([np.insert(whole[restored], np.searchsorted(restored, places), marks), [end]])
    return Corrupted(shown[~hidden | begins], np.concatenate([[start], target[:-1]]), target)


def assign_denoisers(count: int, denoisers: Sequence[Denoiser], generator: np.random.Generator) -> NDArray[np.int64]:
    """The denoiser of each of `count` texts, by its number, in random order.

    Texts are shared out by weight as exactly as whole numbers allow, and what remains is drawn by what each denoiser
    lacks, so that every batch has nearly the same mixture, and the mean over batches is exact.
    """
    weights = np.array([denoiser.weight for denoiser in denoisers])
    wanted = count * weights / weights.sum()
    # Systematic sampling: one uniform offset, so the expected number of each is exactly what its weight says.
    edges = np.concatenate([[0.0], np.cumsum(wanted)])
    edges[-1] = count
    numbers = np.searchsorted(edges, np.arange(count) + generator.random(), side="right") - 1
    return generator.permutation(numbers).astype(np.int64)


def corrupt_text(
    ids: Sequence[int],
    denoiser: Denoiser,
    sentinels: Sequence[int],
    generator: np.random.Generator,
    *,
    opening: int,
    closing: int,
    start: int,
    end: int,
) -> Corrupted:
    """Corrupt a tokenized text under a denoiser.

    Args:
        ids: its tokens.
        denoiser: what is hidden.
        sentinels: ids of tokens that mark spans.
        generator: draws the spans.
        opening: number of special tokens at the beginning, which are never hidden.
        closing: number of special tokens at the end, which are never hidden.
        start: token that the decoder reads first.
        end: last token of the target.

    Raises:
        ValueError: fewer than two tokens could be hidden, or there are fewer sentinels than spans.
    """
    hidden = np.zeros(len(ids), dtype=np.bool_)
    inner = slice(opening, len(ids) - closing)
    hidden[inner] = hide(len(range(*inner.indices(len(ids)))), denoiser, generator)
    return corrupt(ids, hidden, sentinels, start=start, end=end)
