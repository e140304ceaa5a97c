"""Corrupted texts hold every token once, sentinels in order; mixtures are shared out exactly."""

import numpy as np
import pytest

from gemma4vec.data.denoising.corrupt import assign_denoisers, corrupt, corrupt_text
from gemma4vec.recipe.denoising import MIXTURES, Denoiser

SENTINELS = list(range(1000, 1300))


def test_the_example_of_the_docstring() -> None:
    ids = [10, 11, 12, 13, 14, 15, 16]
    hidden = np.array([False, True, True, False, False, True, False])
    found = corrupt(ids, hidden, SENTINELS, start=2, end=1)
    assert found.encoder.tolist() == [10, 1000, 13, 14, 1001, 16]
    assert found.target.tolist() == [1000, 11, 12, 1001, 15, 1]
    assert found.decoder.tolist() == [2, 1000, 11, 12, 1001, 15]


def restored(encoder: list[int], target: list[int]) -> list[int]:
    """The text again: each sentinel of the encoder replaced by what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in SENTINELS:
            current = spans[token] = []
        else:
            current.append(token)
    return [token for one in encoder for token in (spans[one] if one in SENTINELS else [one])]


@pytest.mark.parametrize("name", MIXTURES)
def test_the_text_can_be_restored_and_sentinels_are_in_order(name: str) -> None:
    generator = np.random.default_rng(1)
    for number, length in enumerate([2, 3, 9, 64, 255]):
        for denoiser in MIXTURES[name]:
            ids = [2, *generator.permutation(500)[:length].tolist(), 3]
            found = corrupt_text(ids, denoiser, SENTINELS, generator, opening=1, closing=1, start=2, end=1)
            encoder, target = found.encoder.tolist(), found.target.tolist()
            assert restored(encoder, target[:-1]) == ids and target[-1] == 1, (number, denoiser)
            assert encoder[0] == 2 and encoder[-1] == 3  # special tokens stay
            marks = [token for token in encoder if token in SENTINELS]
            assert marks == SENTINELS[: len(marks)] == [token for token in target if token in SENTINELS]
            assert found.decoder.tolist() == [2, *target[:-1]]


def test_the_same_seed_hides_the_same() -> None:
    def one(seed: int) -> list[int]:
        denoiser, generator = Denoiser(span=3, share=0.5), np.random.default_rng(seed)
        found = corrupt_text(list(range(64)), denoiser, SENTINELS, generator, opening=0, closing=0, start=2, end=1)
        return found.encoder.tolist()

    assert one(0) == one(0) != one(1)


def test_too_few_sentinels() -> None:
    hidden = np.array([False, True, False, True])
    with pytest.raises(ValueError, match="2 spans, 1 sentinels"):
        corrupt([5, 6, 7, 8], hidden, [9], start=2, end=1)


def test_a_batch_has_the_mixture() -> None:
    mixture = MIXTURES["t5gemma2"]
    for seed in range(5):
        numbers = assign_denoisers(64, mixture, np.random.default_rng(seed))
        assert np.bincount(numbers).tolist() == [8, 8, 8, 8, 32]
    few = [assign_denoisers(3, mixture, np.random.default_rng(seed)) for seed in range(4000)]
    shares = np.bincount(np.concatenate(few)) / 12_000
    np.testing.assert_allclose(shares, [0.125, 0.125, 0.125, 0.125, 0.5], atol=0.015)
    first = np.bincount([numbers[0] for numbers in few]) / 4000  # no denoiser has a place of its own
    np.testing.assert_allclose(first, [0.125, 0.125, 0.125, 0.125, 0.5], atol=0.04)
