"""What passes the gates."""

import numpy as np

from gemma4vec.fanout.keep import Gates, choose, same_words
from gemma4vec.inversion.held_out import normalized


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


QUERY = at(0)[0]


def test_a_text_must_be_faithful_and_new() -> None:
    texts = ["sort a list", "List, sorting", "sort the dictionary", "weather today", "", "open files"]
    vectors = at(0, 1, 20, 80, 5, -40)
    found = choose(texts, vectors, "sorting a list", QUERY, 8, Gates(diverse=0))
    assert [texts[place] for place in found] == ["sort the dictionary", "open files"]
    again = choose(texts, vectors, "sorting a list", QUERY, 8, Gates(diverse=0), known=[normalized("Open  files")])
    assert [texts[place] for place in again] == ["sort the dictionary"]
    assert same_words("List, sorting") == same_words("sort lists")


def test_no_more_than_asked_for_and_none_that_says_the_same() -> None:
    texts = ["one", "two", "three", "four"]
    vectors = at(10, 11, 40, -10)
    assert choose(texts, vectors, "q", QUERY, 1, Gates(diverse=0)) == [0]
    # 11 degrees is within arccos(.97) = 14 degrees of 10.
    assert choose(texts, vectors, "q", QUERY, 4, Gates(diverse=0)) == [0, 3, 2]


def test_diversity_changes_the_order_alone() -> None:
    texts, vectors = ["one", "two", "three"], at(10, 26, -30)
    assert choose(texts, vectors, "q", QUERY, 3, Gates(diverse=0)) == [0, 1, 2]
    assert choose(texts, vectors, "q", QUERY, 3, Gates(diverse=0.6)) == [0, 2, 1]


def test_long_texts_and_nothing_at_all() -> None:
    assert choose(["a " * 40], at(3), "q", QUERY, 3, Gates()) == []
    assert choose([], np.zeros((0, 2), np.float32), "q", QUERY, 3, Gates()) == []
