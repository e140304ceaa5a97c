"""MinHash against the Jaccard similarity that it estimates."""

import numpy as np
import pytest

from gemma4vec.data.ngrams.minhash import BANDS, PERMUTATIONS, ROWS, compute_band_keys, compute_signatures, jaccard
from gemma4vec.data.ngrams.word_ngrams import mix


def pair_at(similarity, size, generator):
    """Two sets of hashes with (nearly) this Jaccard similarity."""
    common = round(2 * size * similarity / (1 + similarity))
    members = mix(generator.integers(0, 2**63, 2 * size - common).astype(np.uint64))
    return members[:size], members[size - common :]


def signatures_of(sets):
    starts = np.cumsum([0, *map(len, sets)])[:-1]
    return compute_signatures(np.concatenate(sets), starts)


@pytest.mark.parametrize("similarity", [0.1, 0.5, 0.7, 0.9])
def test_the_share_of_equal_places_is_the_jaccard_similarity(similarity):
    generator = np.random.default_rng(0)
    pairs = [pair_at(similarity, 200, generator) for _ in range(40)]
    exact = np.mean([len({*a.tolist()} & {*b.tolist()}) / len({*a.tolist()} | {*b.tolist()}) for a, b in pairs])
    estimate = np.mean([np.mean(np.equal(*signatures_of(pair))) for pair in pairs])
    deviation = np.sqrt(exact * (1 - exact) / (PERMUTATIONS * len(pairs)))
    assert abs(estimate - exact) < 4 * deviation
    assert np.mean([jaccard(np.unique(a), np.unique(b)) for a, b in pairs]) == pytest.approx(exact)


@pytest.mark.parametrize(("similarity", "least", "most"), [(0.7, 0.99, 1.0), (0.2, 0.0, 0.15)])
def test_bands_find_like_pairs_and_leave_out_others(similarity, least, most):
    generator = np.random.default_rng(1)
    found = []
    for _ in range(200):
        keys = compute_band_keys(signatures_of(pair_at(similarity, 100, generator)))
        found.append((keys[0] == keys[1]).any())
    promised = 1 - (1 - similarity**ROWS) ** BANDS
    assert least <= np.mean(found) <= most and abs(np.mean(found) - promised) < 0.09


def test_a_signature_depends_on_the_set_alone():
    members = mix(np.arange(1, 30, dtype=np.uint64))
    repeated = np.concatenate([members[::-1], members[:5]])
    assert (signatures_of([members])[0] == signatures_of([repeated])[0]).all()
    both = signatures_of([members[:3], members])
    assert (both[1] == signatures_of([members])[0]).all()
    assert signatures_of([members[:3]]).shape == (1, PERMUTATIONS)


def test_no_sets():
    assert compute_band_keys(compute_signatures(np.empty(0, np.uint64), np.empty(0, np.int64))).shape == (0, BANDS)
    assert jaccard(np.array([1, 2]), np.array([3])) == 0.0
