"""Profiles of rows written for the purpose."""

import numpy as np
import pytest

from gemma4vec.data.quality.profile import BINS, Distribution, profile_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.text.prompts import Document


def documents(*texts):
    return [Document(text) for text in texts]


ROWS = [
    Row("red apple", documents("a red apple falls"), documents("a red pear", "blue sky")),
    Row("green river", documents("water", "the river"), documents("green river river")),
    Row("the of", documents("and")),
]


def look(rows=ROWS, **settings):
    return profile_rows(
        "rows", rows, **{"sample": 100, "detect": lambda text: "en" if "e" in text else "und", **settings}
    )


def test_counts_lengths_and_languages():
    found = look()
    assert (found.rows, found.positives, found.negatives, found.sampled, found.unit) == (3, 4, 3, 3, "words")
    assert found.lengths["query"].median == 2 and found.lengths["positive"].largest == 4
    assert found.languages["query"] == {"en": 3} and found.languages["positive"] == {"en": 3, "und": 1}
    by_tokens = look(count=lambda texts: [len(text) for text in texts])
    assert by_tokens.unit == "tokens" and by_tokens.lengths["query"].largest == 11


def test_shared_words_and_hard_negatives():
    found = look()
    assert found.overlap.mean == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert found.negative_overlap.mean == pytest.approx((0.5 + 0 + 1) / 3)
    assert found.as_near == pytest.approx(1 / 3)  # "green river river" has more of its query than the best positive
    assert look([Row("a", documents("b"))]).as_near is None


def test_cosines_by_a_model():
    def cosines(queries, texts):
        assert len(queries) == len(texts)
        return np.array([0.5 if "river" in document.text else 0.25 for document in texts], dtype=np.float32)

    found = look(similarity=cosines)
    assert found.similarity.n == 4 and found.negative_similarity.mean == pytest.approx(1 / 3)
    assert found.above == 1.0  # .25 against .25, .25 against .25, .5 against the best of .25 and .5


def test_a_sample_is_spread_evenly_and_counts_stay_whole():
    rows = [Row(f"q {number}", documents("p"), documents("n")) for number in range(100)]
    found = look(rows, sample=10)
    assert found.rows == found.positives == found.negatives == 100 and found.sampled == 10


def test_plain_texts_have_queries_alone():
    found = look([Row("only text", [])])
    assert found.positives == 0 and found.overlap is None and found.lengths["positive"] is None


def test_a_distribution_against_numpy():
    values = np.random.default_rng(0).exponential(50, 1_000)
    found = Distribution.from_values(values)
    assert [found.low, found.median, found.high] == pytest.approx(np.quantile(values, [0.05, 0.5, 0.95]).tolist())
    assert sum(found.counts) == 1_000 and len(found.counts) == BINS == len(found.edges) - 1
    assert found.edges[-1] == pytest.approx(np.quantile(values, 0.99)) and found.largest == values.max()
    assert Distribution.from_values([]) is None
    few = Distribution.from_values([1, 1, 3, 5])
    assert few.edges == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] and few.counts == [0, 2, 0, 1, 1]  # 99% are below 5
