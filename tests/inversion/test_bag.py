"""The closed-form attacker: scikit-learn's ridge, and the ways in which such a figure deceives."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge

from gemma4vec.inversion.bag import Moments, fit_bag
from gemma4vec.inversion.floors import derangement, nearest_text, shuffled, true_text, unigrams
from gemma4vec.inversion.held_out import Split, split_texts
from gemma4vec.inversion.measures import measure_bags, split_words

WORDS = [f"w{n}" for n in range(60)]
Vectors = NDArray[np.float32]


def texts_of(count: int, seed: int) -> list[str]:
    """Random sentences of four to nine words; a few words are frequent."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 61)
    return [
        " ".join(generator.choice(WORDS, generator.integers(4, 10), p=shares / shares.sum(), replace=False))
        for _ in range(count)
    ]


def encode(texts: list[str], dimension: int = 24, noise: float = 0.02) -> Vectors:
    """A random projection of the bag, with noise: too narrow to be read exactly."""
    projection = np.random.default_rng(5).standard_normal((60, dimension))
    bags = np.array([[word in text.split() for word in WORDS] for text in texts], dtype=float)
    found = bags @ projection + noise * np.random.default_rng(len(texts)).standard_normal((len(texts), dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def split() -> Split:
    texts = texts_of(1_500, seed=1)
    return split_texts(texts, ["made"] * len(texts), held_out=200)


def f1(found: list[list[str]], split: Split) -> float:
    return measure_bags(found, split.held_out, split.held_out_sources).interval().mean


@pytest.mark.parametrize("penalty", [0.03, 1.0, 30.0])
def test_the_closed_form_is_scikit_learns_ridge(penalty: float) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((80, 12)).astype(np.float32) + 0.7  # a mean that the offset must take
    targets = (generator.random((80, 9)) < 0.2).astype(np.float32)
    found = Moments.of(vectors, sparse.csr_array(targets)).ridge(penalty)
    theirs = Ridge(alpha=penalty).fit(vectors.astype(np.float64), targets.astype(np.float64))
    np.testing.assert_allclose(found.inverse_DD @ found.products_DV, theirs.coef_.T, atol=2e-5)
    unseen = generator.standard_normal((7, 12)).astype(np.float32)
    np.testing.assert_allclose(found.predict(unseen), theirs.predict(unseen), atol=1e-4)


def test_words_come_most_probable_first_and_as_many_as_expected(split: Split) -> None:
    vectors = encode(split.train)
    attacker = fit_bag(vectors, split.train, penalty=0.3)
    scores = attacker.ridge.predict(vectors[:50])
    for row, bag in zip(scores, attacker.decode(vectors[:50]), strict=True):
        assert len(bag) == max(1, round(float(row[-1])))
        order = np.argsort(-row[:-1], kind="stable")[: len(bag)]
        assert bag == [attacker.words[place] for place in order]


def test_the_attacker_beats_every_floor_on_texts_that_it_never_saw(split: Split) -> None:
    train, held_out = encode(split.train), encode(split.held_out)
    attacker = fit_bag(train, split.train)
    found = f1(attacker.decode(held_out), split)
    nearest = nearest_text(held_out, train, split)
    floors = {
        "unigrams": unigrams(split).interval().mean,
        "nearest": nearest.interval("f1").mean,
        "shuffled": shuffled(attacker.decode(held_out), split).interval().mean,
    }
    assert all(found > floor + 0.05 for floor in floors.values()), (found, floors)
    assert nearest.values["exact"].max() == 0.0 and nearest.values["cosine"].max() <= 1.0 + 1e-6
    assert true_text(split, held_out).values["f1"].min() == 1.0


def test_another_texts_vector_or_a_constant_one_is_worth_no_more_than_word_counts(split: Split) -> None:
    train, held_out = encode(split.train), encode(split.held_out)
    attacker = fit_bag(train, split.train)
    floor = unigrams(split).interval()
    mixed = shuffled(attacker.decode(held_out), split).interval()
    order = derangement(len(held_out))
    assert f1(attacker.decode(held_out[order]), split) == mixed.mean  # another text's vector, or its bag: the same
    assert mixed.mean <= floor.high
    constant = np.repeat(train.mean(axis=0, keepdims=True), len(held_out), axis=0)
    assert abs(f1(attacker.decode(constant), split) - floor.mean) < 0.03
    # Fitted on vectors that say nothing, it has learned the frequent words alone.
    blind = fit_bag(np.repeat(train[:1], len(train), axis=0), split.train, penalty=1.0)
    assert f1(blind.decode(held_out), split) == pytest.approx(floor.mean, abs=0.03)
    # Fitted on shuffled pairs of vector and text, too.
    astray = fit_bag(train[derangement(len(train))], split.train)
    assert f1(astray.decode(held_out), split) <= floor.high + 0.02


def test_an_attacker_fitted_on_the_held_out_texts_scores_higher(split: Split) -> None:
    """The detector of a leak works: were held-out texts among the training texts, the figure would say so."""
    train, held_out = encode(split.train), encode(split.held_out)
    honest = f1(fit_bag(train[:200], split.train[:200], penalty=0.03).decode(held_out), split)
    leaked = f1(fit_bag(held_out, split.held_out, penalty=0.03).decode(held_out), split)
    assert leaked > honest + 0.05


def test_words_outside_of_the_vocabulary_are_missed_not_forgotten() -> None:
    texts = [f"common rare{n}" for n in range(40)]
    vectors = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    attacker = fit_bag(vectors, texts, penalty=1.0, vocabulary=1)
    assert attacker.words == ["common"] and attacker.decode(vectors) == [["common"]] * 40
    assert measure_bags([["common"]] * 40, texts, ["s"] * 40).interval().mean == pytest.approx(2 / 3)
    assert len(split_words(texts[0])) == 2
    with pytest.raises(ValueError, match="40 vectors for 39 texts"):
        fit_bag(vectors, texts[:-1])
    with pytest.raises(ValueError, match="no text has a word"):
        fit_bag(vectors[:2], ["!!", "?"])


def test_nothing_keeps_its_place_in_a_derangement() -> None:
    for seed in range(20):
        order = derangement(30, seed)
        assert sorted(order.tolist()) == list(range(30)) and not (order == np.arange(30)).any()
