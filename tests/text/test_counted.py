"""Numbers with their nouns."""

import pytest

from gemma4vec.text.counted import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (1, ("hit",), "1 hit"),
        (0, ("hit",), "0 hits"),
        (2000, ("query", "queries"), "2,000 queries"),
        (1, ("query", "queries"), "1 query"),
    ],
)
def test_a_number_has_the_noun_of_its_number(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected
