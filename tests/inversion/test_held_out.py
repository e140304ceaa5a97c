"""Held-out texts: no text on both sides, whatever its case, punctuation or white space."""

import pytest

from gemma4vec.errors import InputError
from gemma4vec.inversion.held_out import normalized, split_texts


def test_no_text_is_on_both_sides_nor_twice_on_one() -> None:
    texts = [f"Read file {n}" for n in range(200)]
    doubled = [form for text in texts for form in (text, f"  {text.lower()}!", text.upper().replace(" ", "   "))]
    split = split_texts([*doubled, "", "   "], ["s"] * 602, held_out=40)
    keys = [normalized(text) for text in (*split.train, *split.held_out)]
    assert len(keys) == len(set(keys)) == 200 and len(split.held_out) == 40 and split.duplicates == 402
    assert not {normalized(text) for text in split.train} & {normalized(text) for text in split.held_out}


def test_sources_stay_with_their_texts_and_the_draw_is_repeatable() -> None:
    texts = [f"text number {n}" for n in range(100)]
    sources = ["even" if n % 2 == 0 else "odd" for n in range(100)]
    one, other = (split_texts(texts, sources, held_out=20, seed=seed) for seed in (0, 1))
    assert one == split_texts(texts, sources, held_out=20, seed=0) != other
    for text, source in zip(one.held_out + one.train, one.held_out_sources + one.train_sources, strict=True):
        assert source == ("odd" if int(text.split()[-1]) % 2 else "even")
    assert len(split_texts(texts, sources).held_out) == 20  # a fifth at most


def test_punctuation_alone_is_a_text_of_its_own_and_accents_are_kept() -> None:
    assert normalized("?!") != normalized("!!") and normalized("Straße") == normalized("STRASSE")
    assert normalized("café") != normalized("cafe") and normalized("ﬁle") == normalized("file")


def test_too_few_texts_are_one_line() -> None:
    with pytest.raises(InputError, match=r"^60 texts, 50 of them different: too few to hold out 20"):
        split_texts([f"text {n % 50}" for n in range(60)], ["s"] * 60)
    with pytest.raises(InputError, match=r"^5 held-out texts say nothing"):
        split_texts(["a"] * 100, ["s"] * 100, held_out=5)
