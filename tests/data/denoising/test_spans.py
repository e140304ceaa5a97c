"""Hidden spans: how many, how long, where; and that all places are equally likely."""

from collections import Counter

import numpy as np
import pytest

from gemma4vec.data.denoising.spans import after_prefix, count_spans, hide, most_spans, random_pieces, random_spans
from gemma4vec.recipe.denoising import MIXTURES, Denoiser


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize(("span", "share"), [(3, 0.15), (12, 0.5), (32, 0.15), (32, 0.5), (1, 0.9), (64, 0.5)])
def test_properties_of_t5s_noise_mask(span: float, share: float) -> None:
    """Those that its own test names: numbers of tokens and spans, a visible start, a hidden end."""
    for seed, length in enumerate([2, 3, 5, 17, 64, 256, 512]):
        mask = random_spans(length, span=span, share=share, generator=np.random.default_rng(seed))
        hidden = min(max(round(length * share), 1), length - 1)
        assert mask.shape == (length,) and mask.sum() == hidden
        assert not mask[0] and mask[-1]
        assert len(runs(mask)) == min(max(round(hidden / span), 1), length - hidden)


def test_every_way_to_cut_is_equally_likely() -> None:
    generator = np.random.default_rng(0)
    seen = Counter(tuple(random_pieces(6, 3, generator).tolist()) for _ in range(10_000))
    assert len(seen) == 10 and all(sum(pieces) == 6 and min(pieces) >= 1 for pieces in seen)  # 5 choose 2
    assert max(abs(count - 1000) for count in seen.values()) < 150  # 5 standard deviations
    assert random_pieces(4, 1, generator).tolist() == [4] and random_pieces(3, 3, generator).tolist() == [1, 1, 1]


def test_a_prefix_is_one_span() -> None:
    assert after_prefix(8, 0.25).tolist() == [False] * 2 + [True] * 6
    assert after_prefix(2, 0.01).tolist() == [False, True] and after_prefix(2, 0.99).tolist() == [False, True]
    denoiser, generator = Denoiser(prefix=0.5), np.random.default_rng(0)
    assert hide(4, denoiser, generator).tolist() == [False, False, True, True]


@pytest.mark.parametrize("denoiser", [one for mixture in MIXTURES.values() for one in mixture])
def test_the_most_spans_of_shorter_texts(denoiser: Denoiser) -> None:
    generator = np.random.default_rng(0)
    found = [len(runs(hide(length, denoiser, generator))) for length in range(2, 130)]
    assert most_spans(129, denoiser) == max(found) and most_spans(1, denoiser) == 1


def test_one_token_cannot_be_hidden() -> None:
    for call in (
        lambda: random_spans(1, span=3, share=0.5, generator=np.random.default_rng(0)),
        lambda: after_prefix(1, 0.5),
        lambda: count_spans(0, span=3, share=0.5),
    ):
        with pytest.raises(ValueError, match="a text needs 2"):
            call()
