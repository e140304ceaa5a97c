"""N-gram hashes match those of a slow loop: equal exactly where the words are equal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4vec.data.ngrams import word_ngrams
from gemma4vec.data.ngrams.word_ngrams import WordNgrams, batch_texts, normalize

WORDS = st.sampled_from(["a", "b", "ab", "ba", "é", "日", "word", "wörter"])
TEXTS = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=6)


def slow_ngrams(texts, n):
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
def test_normalized_words(text, words):
    assert normalize(text) == words


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_ngrams_match_a_slow_loop_and_hash_alike_when_equal(texts, n):
    found = WordNgrams.from_texts(texts)
    assert found.lengths.tolist() == [len(text.split()) for text in texts]
    expected = slow_ngrams(texts, n)
    hashes, numbers = found.ngrams(n)
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
        for words in ([ngram for ngram, _ in slow_ngrams([text], 3)] or [text])
    ]
    assert numbers.tolist() == [number for _, number in expected]
    assert len({*hashes.tolist()}) == len({words for words, _ in expected})


def test_a_hash_depends_on_the_words_alone():
    alone = WordNgrams.from_texts(["b c d"]).ngrams(3)[0]
    inside = WordNgrams.from_texts(["x", "a b c d e", "y"]).ngrams(3)[0]
    assert alone[0] == inside[1] and len({*inside.tolist()}) == 3
    opening, number = WordNgrams.from_texts(["too short", "b c d e"]).first_ngrams(3, 4)
    assert opening[0] == alone[0] and number.tolist() == [1]


def test_batches_hold_every_text_once(monkeypatch):
    monkeypatch.setattr(word_ngrams, "BATCH_BYTES", 30)
    texts = [f"text number {number} of some" for number in range(20)]
    parts = list(batch_texts(texts))
    assert [start for start, _ in parts] == list(range(0, 20, 2))
    joined = np.concatenate([part.ngrams(2)[0] for _, part in parts])
    assert joined.tolist() == WordNgrams.from_texts(texts).ngrams(2)[0].tolist()
    assert list(batch_texts([])) == []
