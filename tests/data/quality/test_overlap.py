"""Overlap search against a loop over all pairs."""

import random

import pytest

from gemma4vec.data.ngrams import word_ngrams as spans
from gemma4vec.data.ngrams.word_ngrams import normalize
from gemma4vec.data.quality.overlap import CONTAINED_WORDS, Match, OverlapIndex


def slow_match(entries, texts, near):
    """Every pair, judged by the definitions."""
    found = []
    for number, text in enumerate(map(normalize, texts)):
        for place, entry in enumerate(map(normalize, entries)):
            if not text or not entry:
                continue
            shorter, longer = sorted((text, entry), key=len)
            mine, theirs = shingles(text), shingles(entry)
            similarity = len(mine & theirs) / len(mine | theirs)
            if text == entry:
                found.append(Match(number, place, "exact", 1.0))
            elif len(shorter.split()) >= CONTAINED_WORDS and f" {shorter}" in f" {longer}":
                found.append(Match(number, place, "contained", len(shorter) / len(longer)))
            elif similarity >= near:
                found.append(Match(number, place, "near", similarity))
    return found


def shingles(text):
    words = text.split()
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)} or {tuple(words)}


def some_texts(generator, count):
    """Texts of a small vocabulary, with parts, copies and slightly changed ones of each other."""
    texts = [
        " ".join(generator.choices(["one", "two", "three", "four", "five", "six"], k=generator.randint(0, 40)))
        for _ in range(count)
    ]
    for _ in range(count):
        words = generator.choice(texts).split() or ["x"]
        start = generator.randrange(len(words))
        changed = list(words)
        changed[start] = "changed"
        texts += [
            " ".join(words[start:]),
            " ".join(words[: start + 1])[:-1],
            " ".join(changed),
            " ".join(words).upper() + "!",
        ]
    generator.shuffle(texts)
    return texts


@pytest.mark.parametrize("batch_bytes", [200, 4_000_000])
def test_equal_to_all_pairs(monkeypatch, batch_bytes):
    monkeypatch.setattr(spans, "BATCH_BYTES", batch_bytes)
    generator = random.Random(3)
    entries, texts = some_texts(generator, 12), some_texts(generator, 12) + some_texts(random.Random(3), 12)
    expected = slow_match(entries, texts, 0.7)
    found = OverlapIndex(entries, 0.7).match(texts)
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    assert [one.similarity for one in found] == pytest.approx([one.similarity for one in expected])
    assert {one.kind for one in expected} == {"exact", "contained", "near"}


def test_a_cut_answer_is_contained():
    words = [f"word{number}" for number in range(60)]
    document = f"Question: What is it? Answer: {' '.join(words)}."
    cut = " ".join(words)[:77]  # in the middle of a word
    assert document.find(cut) > 0 and not document[document.find(cut) + len(cut)].isspace()
    index = OverlapIndex([document])
    assert [one.kind for one in index.match([cut, cut.upper(), "word1 " + cut])] == ["contained", "contained"]
    assert OverlapIndex([cut]).match([document])[0].kind == "contained"


def test_short_quotes_and_middles_of_words_are_not_contained():
    eight = "a1 b2 c3 d4 e5 f6 g7 h8"
    index = OverlapIndex([f"before {eight} behind", "xa1 b2 c3 d4 e5 f6 g7 h8 i9"])
    assert [one.entry for one in index.match([eight])] == [0]
    assert index.match([eight.removesuffix(" h8")]) == []


def test_nothing_to_compare():
    assert OverlapIndex([]).match(["a text of some words"]) == []
    assert OverlapIndex(["...", ""]).match(["", "!!!", "word"]) == []
    assert OverlapIndex(["a text"]).match([]) == []
