"""Which tokens of a text are hidden: random spans as in T5, or everything after a prefix. Pure functions.

`random_spans` has the distribution of T5's `random_spans_noise_mask` (Raffel et al. 2020, arXiv:1910.10683, section
3.1.4; `t5.data.preprocessors`): the number of hidden tokens and of spans is fixed by length, share and mean span, and
all ways to cut both kinds of tokens into that number of pieces are equally likely. A text begins with a visible token
and ends with a hidden one. So a text that is short for its span has one span, at its end.

Shapes: L tokens, S spans.
"""

import numpy as np
from numpy.typing import NDArray

from gemma4vec.recipe.denoising import Denoiser

SHORTEST = 2  # one token that is hidden, and one that is not


def random_spans(length: int, *, span: float, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Mask `[L]`, true for hidden tokens.

    Args:
        length: L, at least `SHORTEST`.
        span: mean number of tokens of a hidden span.
        share: share of the tokens that is hidden. At least one token is hidden, and at least one is not.
        generator: draws where spans begin and end.

    Raises:
        ValueError: the text is too short.
    """
    hidden, spans = count_spans(length, span=span, share=share)
    pieces = np.stack(
        [random_pieces(length - hidden, spans, generator), random_pieces(hidden, spans, generator)], axis=1
    )
    return np.repeat(np.tile([False, True], spans), pieces.reshape(-1))


def count_spans(length: int, *, span: float, share: float) -> tuple[int, int]:
    """(number of hidden tokens, number of spans) of a text.

    Raises:
        ValueError: the text is too short.
    """
    if length < SHORTEST:
        raise ValueError(f"{length} tokens: a text needs {SHORTEST}, one of which stays")
    hidden = min(max(round(length * share), 1), length - 1)
    # Each span follows a visible token, so there cannot be more spans than these.
    return hidden, min(max(round(hidden / span), 1), length - hidden)


def random_pieces(tokens: int, pieces: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Lengths `[S]` of pieces of at least one token each; every way to cut is equally likely."""
    cuts = np.sort(generator.permutation(tokens - 1)[: pieces - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [tokens]])).astype(np.int64)


def after_prefix(length: int, prefix: float) -> NDArray[np.bool_]:
    """Mask `[L]` that hides all but the first share `prefix` of a text, as one span.

    Raises:
        ValueError: the text is too short.
    """
    if length < SHORTEST:
        raise ValueError(f"{length} tokens: a text needs {SHORTEST}, one of which stays")
    kept = min(max(round(length * prefix), 1), length - 1)
    return np.arange(length) >= kept


def hide(length: int, denoiser: Denoiser, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Mask `[L]` of a text under a denoiser.

    Raises:
        ValueError: the text is too short.
    """
    if denoiser.prefix is not None:
        return after_prefix(length, denoiser.prefix)
    assert denoiser.span is not None and denoiser.share is not None
    return random_spans(length, span=denoiser.span, share=denoiser.share, generator=generator)


def most_spans(length: int, denoiser: Denoiser) -> int:
    """Largest number of spans in texts of at most `length` tokens: the number of sentinels that are needed."""
    if denoiser.prefix is not None or length < SHORTEST:
        return 1
    assert denoiser.span is not None and denoiser.share is not None
    return max(count_spans(n, span=denoiser.span, share=denoiser.share)[1] for n in range(SHORTEST, length + 1))
