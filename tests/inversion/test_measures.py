"""Measures of inversion by hand-worked values, and their intervals by source."""

import math

import numpy as np
import pytest

from gemma4vec.inversion.measures import (
    is_exact,
    measure_bags,
    measure_texts,
    sentence_bleu,
    split_words,
    token_set_f1,
)


def test_f1_of_sets_ignores_order_and_repetition() -> None:
    assert token_set_f1(["a", "b", "c"], ["c", "b", "a", "a"]) == 1.0
    assert token_set_f1([], ["a"]) == 0.0 and token_set_f1([], []) == 1.0
    precision, recall = 2 / 3, 2 / 5
    found, wanted = ["the", "red", "cat"], ["the", "cat", "sat", "on", "mats"]
    assert token_set_f1(found, wanted) == pytest.approx(2 * precision * recall / (precision + recall))


def test_exact_counts_case_and_punctuation_and_not_white_space() -> None:
    assert is_exact(" Read  the file ", "Read the file")
    assert not is_exact("read the file", "Read the file") and not is_exact("Read the file.", "Read the file")


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0),
        # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples, equal lengths.
        ("the cat sat on a mat", "the cat sat on the mat", (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25),
        # A shorter text: every precision is 1, lengths 4 and 6.
        ("the cat sat on", "the cat sat on the mat", math.exp(1 - 6 / 4)),
        # Words are clipped: "the" counts twice at most. Pairs and longer are zero: 1/2, 1/4 and 1/8 of one.
        ("the the the the", "the cat the mat", (2 / 4 * (1 / 2) / 3 * (1 / 4) / 2 * (1 / 8) / 1) ** 0.25),
        # Two words have no triples: two precisions alone.
        ("red cat", "red dog", math.sqrt(1 / 2 * (1 / 2) / 1)),
        ("dog", "red cat", 0.0),
        ("", "red cat", 0.0),
    ],
)
def test_bleu_is_worked_by_hand(found: str, wanted: str, expected: float) -> None:
    assert sentence_bleu(found.split(), wanted.split()) == pytest.approx(expected, abs=1e-12)


def test_every_measure_has_an_interval_for_each_source() -> None:
    wanted = [f"word{n} of text {n}" for n in range(40)]
    sources = ["a"] * 30 + ["b"] * 10
    found = [text if n % 2 else "nothing" for n, text in enumerate(wanted)]
    recovery = measure_texts(found, wanted, sources, np.linspace(0, 1, 40))
    assert set(recovery.values) == {"f1", "exact", "bleu", "cosine"}
    for measure in ("f1", "exact", "bleu"):
        whole = recovery.interval(measure)
        assert whole.mean == 0.5 and whole.low < 0.4 and whole.high > 0.6 and whole.n == 40
    by_source = recovery.by_source("cosine")
    assert by_source["a"].mean == pytest.approx(29 / 78) and by_source["b"].n == 10
    assert by_source["b"].high - by_source["b"].low < by_source["a"].high - by_source["a"].low
    with pytest.raises(ValueError, match="cosine has"):
        measure_texts(found, wanted, sources, np.zeros(3))


def test_bags_are_measured_on_words_alone() -> None:
    found = measure_bags([["file", "read"], ["tree"]], ["Read the FILE!", "A graph."], ["x", "y"])
    assert found.values["f1"].tolist() == [pytest.approx(4 / 5), 0.0]
    assert split_words("snake_case isn't 2.5") == ["snake_case", "isn", "t", "2", "5"]
