"""Hashes of runs of words equal those of a slow loop wherever the words are equal, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.ngrams import word_ngrams as spans
from gemma4vec.data.ngrams.word_ngrams import WordNgrams, batch_texts, normalize

WORDS = st.sampled_from(["a", "b", "ab", "ba", "é", "日", "word", "wörter"])
TEXTS = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=6)


def slow_runs(texts, n):
    return [
        (" ".join(words[at : at + n]), number)
        for number, text in enumerate(texts)
        for words in [text.split()]
        for at in range(len(words) - n + 1)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is (are) Shingles?", "what is are shingles"),
        ("STRASSE, Straße; ﬁne\u00ad", "strasse strasse fine"),
        ("hyphen\u00adated  x_1 3.5", "hyphenated x_1 3 5"),
        ("日本語 text です", "日 本 語 text で す"),
        ("...", ""),
    ],
)
def test_normalised_words(text, words):
    assert normalize(text) == words


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_runs_are_those_of_a_loop_and_hash_alike_when_equal(texts, n):
    found = WordNgrams.from_texts(texts)
    assert found.lengths.tolist() == [len(text.split()) for text in texts]
    expected = slow_runs(texts, n)
    hashes, numbers = found.runs(n)
    assert numbers.tolist() == [number for _, number in expected]
    assert len({*hashes.tolist()}) == len({words for words, _ in expected})
    assert len({*zip(hashes.tolist(), (words for words, _ in expected), strict=True)}) == len({*hashes.tolist()})


@settings(deadline=None)
@given(TEXTS)
def test_shingles_keep_short_texts_whole_and_order_by_text(texts):
    hashes, numbers = WordNgrams.from_texts(texts).shingles(3)
    expected = [
        (words, number)
        for number, text in enumerate(texts)
        if text
        for words in ([run for run, _ in slow_runs([text], 3)] or [text])
    ]
    assert numbers.tolist() == [number for _, number in expected]
    assert len({*hashes.tolist()}) == len({words for words, _ in expected})


def test_a_hash_depends_on_the_words_alone():
    alone = WordNgrams.from_texts(["b c d"]).runs(3)[0]
    inside = WordNgrams.from_texts(["x", "a b c d e", "y"]).runs(3)[0]
    assert alone[0] == inside[1] and len({*inside.tolist()}) == 3
    opening, number = WordNgrams.from_texts(["too short", "b c d e"]).openings(3, 4)
    assert opening[0] == alone[0] and number.tolist() == [1]


def test_batches_hold_every_text_once(monkeypatch):
    monkeypatch.setattr(spans, "BATCH_BYTES", 30)
    texts = [f"text number {number} of some" for number in range(20)]
    parts = list(batch_texts(texts))
    assert [start for start, _ in parts] == list(range(0, 20, 2))
    joined = np.concatenate([part.runs(2)[0] for _, part in parts])
    assert joined.tolist() == WordNgrams.from_texts(texts).runs(2)[0].tolist()
    assert list(batch_texts([])) == []
